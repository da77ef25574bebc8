//! Proxies, and certificates that only a file vouches for.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ingle::catalog::{CaFile, ProxyOptions, Secret};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::broken::nobody;
use super::server::{Reply, Request, Server, Wire, file};
use super::{House, content, fetched, refused, sha256};

/// A hub that speaks TLS as `localhost`; writes its certificate to `pem`.
fn tls_hub(pem: &Path) -> Server {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(pem, made.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let bytes = content();
    let tag = sha256(&bytes).to_string();
    Server::start_over(
        move |socket| {
            let tls = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(StreamOwned::new(tls, socket)) as Box<dyn Wire>)
        },
        move |request, _| file(request, &bytes, &tag),
    )
}

fn ca_file(path: &Path) -> CaFile {
    CaFile {
        named_by: "SSL_CERT_FILE".to_owned(),
        path: path.to_owned(),
    }
}

#[tokio::test]
async fn a_file_of_certificates_is_trusted_besides_the_systems() {
    let mut house = House::new("");
    let pem = house.folder.path().join("ca.pem");
    let server = tls_hub(&pem);
    house.hub.endpoint = format!("https://localhost:{}", server.port());
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(
        said.contains("cannot reach localhost:") && said.contains("certificate"),
        "{said}"
    );
    house.http.ca_file = Some(ca_file(&pem));
    fetched(&house.store(), &house.on_hub(), &content()).await;

    let nothing = house.folder.path().join("empty.pem");
    fs::write(&nothing, "").unwrap();
    house.store().remove("tiny").unwrap();
    for bad in [nothing, house.folder.path().join("none.pem")] {
        house.http.ca_file = Some(ca_file(&bad));
        let said = refused(&house.store(), &house.on_hub()).await;
        let names = format!("SSL_CERT_FILE names {}", bad.display());
        assert!(said.contains(&names) && said.contains("in PEM"), "{said}");
    }
}

/// A proxy that makes tunnels to whatever port of this machine is asked for; gives its address and
/// what it was asked.
fn tunnels() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&heard);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let told = Arc::clone(&told);
            std::thread::spawn(move || tunnel(&client, &told));
        }
    });
    (address, heard)
}

fn tunnel(client: &TcpStream, told: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(client).lines();
    let mut head = Vec::new();
    loop {
        match lines.next()?.ok()? {
            line if line.is_empty() => break,
            line => head.push(line),
        }
    }
    let target = head
        .first()?
        .strip_prefix("CONNECT ")?
        .split(' ')
        .next()?
        .to_owned();
    told.lock().unwrap().push(head.join("\n"));
    let port = target.rsplit_once(':')?.1.parse::<u16>().ok()?;
    let server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let mut writes = client;
    writes.write_all(b"HTTP/1.1 200 Tunnel\r\n\r\n").ok()?;
    let (mut from_server, mut to_client) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let (mut from_client, mut to_server) = (client, &server);
    let _ = std::io::copy(&mut from_client, &mut to_server);
    let _ = server.shutdown(Shutdown::Both);
    Some(())
}

#[tokio::test]
async fn https_goes_through_a_tunnel_and_no_proxy_around_it() {
    let mut house = House::new("");
    let pem = house.folder.path().join("ca.pem");
    let server = tls_hub(&pem);
    house.hub.endpoint = format!("https://localhost:{}", server.port());
    house.http.ca_file = Some(ca_file(&pem));
    let (address, heard) = tunnels();
    house.http.proxies.https = Some(Secret::new(format!("http://me:word@{address}")));
    let house = house.with_token();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    let asked = heard.lock().unwrap().clone();
    let first = asked.first().unwrap().to_lowercase();
    assert!(
        first.starts_with(&format!("connect localhost:{} ", server.port())),
        "{first}"
    );
    assert!(
        first.contains("proxy-authorization: basic bwu6d29yza=="),
        "{first}"
    );
    assert!(
        !first.contains("hf_secret"),
        "the token is inside the tunnel"
    );

    let mut house = house;
    house.store().remove("tiny").unwrap();
    house.http.proxies.none_for = Some("localhost".to_owned());
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert_eq!(heard.lock().unwrap().len(), asked.len());
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_or_wants_a_password_is_named() {
    let mut house = House::new("https://hub.example");
    let dead = nobody();
    house.http.proxies.all = Some(Secret::new(dead.replace("http://", "http://me:word@")));
    let said = refused(&house.store(), &house.on_hub()).await;
    let named = format!("cannot reach hub.example through the proxy {}", &dead[7..]);
    assert!(said.contains(&named) && !said.contains("word"), "{said}");

    let strict = Server::start(|_, _| Reply::status(407));
    let mut house = House::new("http://hub.example");
    house.http.proxies.http = Some(Secret::new(strict.url()));
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(
        said.contains("the proxy wants a name and a password"),
        "{said}"
    );

    house.http.proxies.http = Some(Secret::new("ftp://p"));
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(said.contains("HTTP_PROXY is no proxy's address"), "{said}");
}

#[tokio::test]
async fn plain_http_is_asked_of_the_proxy_itself() {
    let bytes = content();
    let tag = sha256(&bytes).to_string();
    let proxy = Server::start(move |request: &Request, _| {
        assert!(
            request.path.starts_with("http://hub.example/"),
            "{request:?}"
        );
        file(request, &bytes, &tag)
    });
    let mut house = House::new("http://hub.example");
    house.http.proxies = ProxyOptions {
        http: Some(Secret::new(proxy.url().replace("http://", ""))),
        ..ProxyOptions::default()
    };
    fetched(&house.store(), &house.on_hub(), &content()).await;
}
