//! Providers that no connection leads to.

use std::time::Duration;

use ingle::backend::ProviderFault;
use ingle::backend::provider::Dialect;
use ingle::catalog::HttpOptions;

use super::{House, ask, ask_for, hello};

#[tokio::test]
async fn who_cannot_be_reached_is_named_with_the_reason() {
    let house = House::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    for (base_url, host) in [
        (&*refused, "127.0.0.1"),
        ("http://no-such-host.invalid/v1", "no-such-host.invalid"),
    ] {
        let provider = house.provider(Dialect::OpenAi, base_url);
        let outcome = ask(&provider, "m").await;
        assert_eq!(outcome.fault(), ProviderFault::Unreachable);
        let message = outcome.end.unwrap_err().message;
        assert!(
            message.contains(host) && message.contains("acme"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_server_that_does_no_tls_and_one_that_stalls_over_it_are_unreachable() {
    let options = HttpOptions {
        connect_timeout: Duration::from_millis(300),
        ..HttpOptions::default()
    };
    let house = House::with(&options);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Takes the connection in its queue and never says a word.
    let silent = house.provider(Dialect::OpenAi, &format!("https://{address}/v1"));
    let outcome = ask_for(&silent, "m", &hello(), Duration::from_secs(10)).await;
    assert_eq!(outcome.fault(), ProviderFault::Unreachable, "{outcome:?}");

    let server = crate::provider_server::ProviderServer::start();
    let plain = house.provider(Dialect::OpenAi, &format!("https://{}/v1", server.address()));
    let outcome = ask_for(&plain, "m", &hello(), Duration::from_secs(10)).await;
    assert_eq!(outcome.fault(), ProviderFault::Unreachable, "{outcome:?}");
    assert_eq!(server.n_requests(), 0);
}
