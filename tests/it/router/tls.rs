//! Providers whose certificate is no good: nobody speaks to them, and somebody else answers.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use ingle::backend::provider::{Provider, ProviderHttp, ProviderOptions};
use ingle::catalog::{CaFile, HttpOptions};
use ingle::egress::{Egress, EgressLog};
use ingle::router::RouterOptions;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};
use serde_json::{Value, json};

use super::{Hearth, Routing, broken_and_backup};
use crate::pool::Wish;
use crate::provider_server::ProviderServer;

/// A server that says who it is by a certificate good until `year`, which it writes to `pem`, and nothing more; its port.
fn tls_server(year: i32, pem: &Path) -> u16 {
    let mut about = CertificateParams::new(["localhost".to_owned()]).unwrap();
    about.not_before = date_time_ymd(2020, 1, 1);
    about.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let made = about.self_signed(&key).unwrap();
    std::fs::write(pem, made.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            // Until it is greeted, or refused.
            let _ = tls.complete_io(&mut socket);
        }
    });
    port
}

/// Providers that are reached by who trusts `pem`, too.
fn trusting(options: &mut RouterOptions, pem: Option<&Path>, home: &Path) {
    let http = HttpOptions {
        ca_file: pem.map(|path| CaFile {
            named_by: "ca_file".to_owned(),
            path: path.to_owned(),
        }),
        ..HttpOptions::default()
    };
    let log = Arc::new(EgressLog::open(home.join("egress.jsonl")).unwrap());
    let permit = Egress::new(false).providers().unwrap();
    let http = ProviderHttp::new(&http, log, &permit).unwrap();
    let settings = options.settings.providers.values();
    let providers = settings.map(|one| {
        let options = ProviderOptions::of(one, options.settings.max_tokens);
        Provider::new(options, &http).unwrap()
    });
    options.providers = providers.collect();
}

/// What becomes of a request for a provider with a certificate good until `year`.
async fn decision(hearth: &Hearth, year: i32, is_trusted: bool, has_backup: bool) -> (u16, Value) {
    let (backup, folder) = (ProviderServer::start(), tempfile::tempdir().unwrap());
    let pem = folder.path().join("ca.pem");
    let port = tls_server(year, &pem);
    let toml = broken_and_backup(
        &format!("base_url = \"https://localhost:{port}/v1\""),
        &backup,
    );
    let routing = Routing::start(hearth, &toml, |options| {
        let trusted = Some(&*pem).filter(|_| is_trusted);
        trusting(options, trusted, folder.path());
    })
    .await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let wishes = json!({"enable_fallback": has_backup});
    let body =
        json!({"model": "broken:m", "messages": messages, "max_tokens": 20, "ingle": wishes});
    let reply = routing.post(&body).await;
    let n_asked = backup.n_requests();
    assert_eq!(n_asked, usize::from(has_backup), "{reply:?}");
    let told = if has_backup {
        let route = reply.header("x-ingle-route").unwrap();
        let id = route.split("id=").nth(1).unwrap();
        let explained = routing.get(&format!("/v1/route/explain/{id}")).await;
        explained.json()
    } else {
        reply.error()
    };
    routing.end().await;
    (reply.status, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_vouches_for_or_that_is_too_old_sends_the_request_elsewhere() {
    let hearth = Hearth::new(Wish::default());
    for (year, is_trusted) in [(2100, false), (2021, true)] {
        let (status, decision) = decision(&hearth, year, is_trusted, true).await;
        assert_eq!(status, 200, "{decision}");
        assert_eq!(decision["served_by"], "backup:say:8");
        let failed = &decision["attempts"][0];
        assert_eq!(failed["fault"], "unreachable", "{year}: {failed}");
        let said = failed["error"].as_str().unwrap();
        assert!(said.contains("certificate"), "{year}: {said}");
        assert_eq!(failed["cost_micro_usd"], 0);

        let (status, error) = self::decision(&hearth, year, is_trusted, false).await;
        assert_eq!(status, 503, "{error}");
        assert_eq!(error["code"], "provider_unavailable", "{error}");
    }
    // A good one is spoken to: this server only has nothing to say.
    let (_, decision) = decision(&hearth, 2100, true, true).await;
    let failed = &decision["attempts"][0];
    assert_eq!(failed["fault"], "unavailable", "{failed}");
}
