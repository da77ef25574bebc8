//! The whole router: a real engine, scripted providers, real money, the wire.

mod budgets;
mod carried;
mod figures;
mod privacy;
mod proof;
mod spans;
mod tls;
mod vectors;
mod wall;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ingle::backend::local::LocalBackend;
use ingle::backend::provider::{Provider, ProviderHttp, ProviderOptions};
use ingle::catalog::HttpOptions;
use ingle::config::document::Node;
use ingle::config::router::{RouterSettings, Variables, read};
use ingle::egress::{Egress, EgressLog, LOG_NAME, Records};
use ingle::http::{Limits, Server, ServerOptions};
use ingle::keys::Keys;
use ingle::router::money::Money;
use ingle::router::names::Names;
use ingle::router::prices::{Price, Prices};
use ingle::router::quality::Quality;
use ingle::router::teams::Teams;
use ingle::router::{Router, RouterOptions};
use ingle::telemetry;
use ingle::telemetry::spans::Spans;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gguf_file::TinyLlama;
use crate::http::wire::{self, Reply};
use crate::pool::{House, Wish};
use crate::provider_server::{ProviderServer, Shape};

/// A router that knows nobody but the engine, and forgets what was spent.
pub(crate) fn local_only(local: LocalBackend) -> Router {
    let nowhere = tempfile::tempdir().unwrap();
    Router::new(options(local, RouterSettings::default(), nowhere.path()))
}

/// Everything usual, with prices and the egress log of a folder.
fn options(local: LocalBackend, settings: RouterSettings, home: &Path) -> RouterOptions {
    let (providers, records) = providers(&settings, home);
    RouterOptions {
        local,
        names: Names::new(&settings).unwrap(),
        teams: Teams::open(settings.teams_folder.clone(), &settings.teams).unwrap(),
        quality: Quality::new(settings.quality.as_deref()).unwrap(),
        prices: Prices::load(home, Price::FREE).unwrap(),
        money: Money::unrecorded([]),
        egress: Egress::new(false),
        records,
        offline: false,
        spans: Spans::default(),
        providers,
        settings,
    }
}

/// The settings of an `ingle.toml`.
fn settings(toml: &str) -> RouterSettings {
    let document = Node::from_toml(toml, "ingle.toml").unwrap();
    let nothing = |_: &str| None;
    let listen = "127.0.0.1:1".parse().unwrap();
    read(&document, "ingle.toml", listen, Variables::new(&nothing)).unwrap()
}

fn providers(settings: &RouterSettings, home: &Path) -> (Vec<Provider>, Records) {
    let log = Arc::new(EgressLog::open(home.join(LOG_NAME)).unwrap());
    let permit = Egress::new(false).providers().unwrap();
    let http = ProviderHttp::new(&HttpOptions::default(), log.clone(), &permit).unwrap();
    let one = |one| {
        let options = ProviderOptions::of(one, settings.max_tokens);
        Provider::new(options, &http).unwrap()
    };
    let providers = settings.providers.values().map(one).collect();
    (providers, Records::Open(log))
}

/// An engine with one model, `tiny`, for many routers.
struct Hearth {
    house: House,
}

impl Hearth {
    fn new(wish: Wish) -> Self {
        let house = House::new(wish);
        let tiny = TinyLlama {
            context_length: 2048,
            ..TinyLlama::default()
        };
        house.serve("tiny", &tiny);
        Self { house }
    }

    fn local(&self) -> LocalBackend {
        LocalBackend::new(self.house.pool.clone())
    }
}

/// An `ingle.toml` with a provider `broken`, which `table` describes, and one that answers eight words in its place.
fn broken_and_backup(table: &str, backup: &ProviderServer) -> String {
    format!(
        r#"
        [router]
        fallback_chain = [["backup", "say:8"]]
        [router.preferences]
        acceptable_models = ["broken:*", "backup:*"]
        [providers.broken]
        {table}
        [providers.backup]
        base_url = "{}"
        "#,
        backup.base_url(Shape::OpenAi),
    )
}

/// A server with a router of its own.
struct Routing {
    address: SocketAddr,
    router: Router,
    /// With its egress log and its keys.
    home: TempDir,
    stop: CancellationToken,
    running: JoinHandle<usize>,
}

impl Routing {
    /// With the settings of an `ingle.toml`, and what `change` makes of them.
    async fn start(hearth: &Hearth, toml: &str, change: impl FnOnce(&mut RouterOptions)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), hearth, toml, change).await
    }

    /// In a folder that may hold keys.
    async fn start_in(
        home: TempDir,
        hearth: &Hearth,
        toml: &str,
        change: impl FnOnce(&mut RouterOptions),
    ) -> Self {
        let mut options = options(hearth.local(), settings(toml), home.path());
        change(&mut options);
        let router = Router::new(options);
        let server = Server::bind(ServerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            keys: None,
            limits: Limits::default(),
            router: router.clone(),
            recorded: telemetry::record_metrics().unwrap(),
            fingerprint: "b-test".to_owned(),
            gpu_not_used: None,
        })
        .await
        .unwrap()
        .with_keys(Keys::open(home.path()).unwrap(), |_| {});
        let address = server.local_addr().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone(), Duration::from_secs(1)));
        Self {
            address,
            router,
            home,
            stop,
            running,
        }
    }

    async fn get(&self, path: &str) -> Reply {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        wire::exchange(self.address, &(head + "connection: close\r\n\r\n")).await
    }

    async fn post(&self, body: &Value) -> Reply {
        wire::exchange(self.address, &wire::request(&body.to_string())).await
    }

    /// Posts to another path.
    async fn send(&self, path: &str, body: &Value) -> Reply {
        let request = wire::request(&body.to_string());
        let request = request.replace("/v1/chat/completions", path);
        wire::exchange(self.address, &request).await
    }

    async fn embed(&self, body: &Value) -> Reply {
        let request = wire::request(&body.to_string());
        let request = request.replacen("/v1/chat/completions", "/v1/embeddings", 1);
        wire::exchange(self.address, &request).await
    }

    /// What was decided about an answer.
    async fn decision(&self, reply: &Reply) -> Value {
        let route = reply.header("x-ingle-route").unwrap();
        let (_, id) = route.rsplit_once("id=").unwrap();
        self.get(&format!("/v1/route/explain/{id}")).await.json()
    }

    async fn end(self) {
        self.stop.cancel();
        let _ = self.running.await;
    }
}
