//! F8: the wire. Dialects are pure conversions to and from `chat`; everything else here is about
//! strangers on a socket: keys, limits, time.

mod admin;
mod auth;
mod body;
mod connection;
mod error;
mod fields;
mod health;
mod limits;
mod mcp;
mod measure;
mod metrics;
mod openai;
mod proof;
mod rate_limits;
mod route;
mod routing;
mod stall;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

pub use admin::description;
pub use auth::{ApiKeys, KeysError};
pub use limits::Limits;
pub use proof::{figures as egress_figures, moment as egress_moment};
pub use usage::figures as usage_figures;

use crate::backend::local::LocalBackend;
use crate::keys::{Keys, Refreshed};
use crate::router;
use crate::router::money::{Account, Moment};
use crate::telemetry::names;
use auth::{Door, Refusal};
use error::ApiError;
use mcp::Mcp;

/// Whose models these are.
pub const OWNED_BY: &str = "ingle";
/// The `server` header of every answer: who looks for a running Ingle knows it by this.
pub const SERVER: &str = concat!("ingle/", env!("CARGO_PKG_VERSION"));
/// How often what was recorded is put in order, whether or not anybody asks for it.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How often the file of keys is looked at.
const KEYS_LOOKED_AT: Duration = Duration::from_secs(1);

/// What a server needs.
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may ask; `None`: whoever reaches it, except pages of other sites.
    pub keys: Option<ApiKeys>,
    /// How much a stranger may take.
    pub limits: Limits,
    /// Who answers.
    pub router: router::Router,
    /// Renders what was recorded.
    pub recorded: PrometheusHandle,
    /// What computes: changes when the same seed may give another text.
    pub fingerprint: String,
    /// Why no GPU is used although one was looked for.
    pub gpu_not_used: Option<String>,
}

/// A bound server.
pub struct Server {
    listener: TcpListener,
    state: AppState,
}

/// Tells a server that the models named at its start are loaded.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on `/health` says ready.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Who is told which keys there are.
type TellKeys = dyn Fn(&Keys) + Send + Sync;

/// Keys that have names, and who is told when they change.
#[derive(Clone, Default)]
struct Named {
    keys: Option<Keys>,
    changed: Option<Arc<TellKeys>>,
}

impl Named {
    /// Looks at the file of keys again.
    fn refresh(&self) {
        if let (Some(keys), Some(changed)) = (&self.keys, &self.changed)
            && keys.refresh() == Refreshed::Changed
        {
            changed(keys);
        }
    }
}

/// What every handler sees.
#[derive(Clone)]
struct AppState {
    router: router::Router,
    /// The engine of this process.
    backend: LocalBackend,
    door: Door,
    named: Named,
    limits: Limits,
    recorded: PrometheusHandle,
    fingerprint: Arc<str>,
    gpu_not_used: Option<Arc<str>>,
    ready: Arc<AtomicBool>,
    draining: CancellationToken,
    mcp: Mcp,
}

impl AppState {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}

impl Server {
    /// Binds the address. Nothing is answered before [`run`](Self::run).
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn bind(options: ServerOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let door = match options.keys {
            Some(keys) => Door::Keys(keys),
            None if listener.local_addr()?.ip().is_loopback() => Door::Here,
            None => Door::Open,
        };
        let backend = options.router.local().clone();
        let state = AppState {
            mcp: Mcp::new(backend.pool().clone(), &options.limits),
            backend,
            router: options.router,
            door,
            named: Named::default(),
            limits: options.limits,
            recorded: options.recorded,
            fingerprint: options.fingerprint.into(),
            gpu_not_used: options.gpu_not_used.map(Into::into),
            ready: Arc::default(),
            draining: CancellationToken::new(),
        };
        Ok(Self { listener, state })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Opens for `keys` too, which are looked at again every second; where there has ever been one, only for keys. Whenever
    /// they change, `changed` is called.
    #[must_use]
    pub fn with_keys(
        mut self,
        keys: Keys,
        changed: impl Fn(&Keys) + Send + Sync + 'static,
    ) -> Self {
        self.state.named = Named {
            keys: Some(keys),
            changed: Some(Arc::new(changed)),
        };
        self
    }

    /// The handle that makes `/health` say ready.
    pub fn readiness(&self) -> Readiness {
        Readiness(Arc::clone(&self.state.ready))
    }

    /// Answers until `stop`; then takes no more connections, finishes the answers under way for up
    /// to `drain`, and ends. Returns how many connections were cut off.
    pub async fn run(self, stop: CancellationToken, drain: Duration) -> usize {
        let Self { listener, state } = self;
        let draining = state.draining.clone();
        let (limits, mcp) = (state.limits, state.mcp.clone());
        let (money, spans) = (state.router.money().clone(), state.router.spans().clone());
        let upkeep = tokio::spawn(upkeep(state.recorded.clone()));
        let watch = tokio::spawn(watch(state.named.clone()));
        let cut_off =
            connection::serve(listener, (routes(state), limits), stop, draining, drain).await;
        upkeep.abort();
        watch.abort();
        mcp.end();
        // What was spent last is written down, and told, whoever runs the server.
        money.close().await;
        spans.close().await;
        cut_off
    }
}

/// Has a key that was revoked open nothing within a second.
async fn watch(named: Named) {
    let mut ticks = tokio::time::interval(KEYS_LOOKED_AT);
    loop {
        ticks.tick().await;
        named.refresh();
    }
}

async fn upkeep(recorded: PrometheusHandle) {
    let mut ticks = tokio::time::interval(METRICS_UPKEEP);
    loop {
        ticks.tick().await;
        recorded.run_upkeep();
    }
}

fn routes(state: AppState) -> Router {
    let body_pause = state.limits.body_pause;
    let open = Router::new()
        .route("/health", get(health::ready))
        .route("/health/live", get(health::live));
    let guarded = Router::new()
        .route("/v1/chat/completions", post(openai::chat::completions))
        .route("/v1/embeddings", post(openai::embeddings::embeddings))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::one))
        .route("/api/models", get(admin::models::list))
        .route(
            "/api/models/{name}",
            get(admin::models::one).delete(admin::models::remove),
        )
        .route("/api/models/{name}/load", post(admin::work::load))
        .route("/api/models/{name}/unload", post(admin::work::unload))
        .route("/api/models/{name}/pull", post(admin::work::pull))
        .route(
            "/mcp",
            get(mcp::answer).post(mcp::answer).delete(mcp::answer),
        )
        .route("/v1/route/plan", post(route::plan))
        .route("/v1/route/explain/{id}", get(route::explain))
        .route("/v1/route/metrics", get(route::measured))
        .route("/v1/route/feedback", post(route::feedback))
        .route("/v1/usage", get(usage::usage))
        .route("/v1/egress/proof", get(proof::proof))
        .route("/metrics", get(metrics::render))
        .fallback(no_such_path)
        .route_layer(middleware::from_fn_with_state(state.clone(), guard));
    let routes = open
        .merge(guarded)
        .method_not_allowed_fallback(no_such_method);
    wrapped(routes.with_state(state), body_pause)
}

/// What every request goes through.
fn wrapped(routes: Router, body_pause: Duration) -> Router {
    routes
        .layer(RequestBodyTimeoutLayer::new(body_pause))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(record))
}

/// Lets pass who may ask.
async fn guard(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let named = state.named.keys.as_ref();
    let mut admitted = auth::admit(&state.door, named, request.headers());
    if admitted == Err(Refusal::WrongKey) {
        // It may have been added a moment ago.
        state.named.refresh();
        admitted = auth::admit(&state.door, named, request.headers());
    }
    match admitted {
        Ok(caller) if caller.is_admin || !auth::is_for_admins(&request) => {
            let account = Account {
                key: caller.key.clone(),
                team: caller.team.clone(),
            };
            let is_limited = request.uri().path().starts_with("/v1/");
            request.extensions_mut().insert(caller);
            let mut response = next.run(request).await;
            if is_limited {
                let remaining = state.router.money().remaining(&account, Moment::now());
                rate_limits::write(response.headers_mut(), &remaining);
            }
            response
        }
        Ok(_) => ApiError::from(Refusal::NotAdmin).into_response(),
        Err(refusal) => ApiError::from(refusal).into_response(),
    }
}

/// Counts and logs every request, and gives it an id. What was asked is nobody's business.
async fn record(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let method = request.method().clone();
    // A path nobody serves is no label: there are too many of them.
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let status = response.status();
    let labels = [
        ("route", route.clone()),
        ("status", status.as_str().to_owned()),
    ];
    ::metrics::counter!(names::HTTP_REQUESTS, &labels).increment(1);
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    tracing::debug!(%id, %method, route, status = status.as_u16(), milliseconds, "answered");
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    response
}

async fn no_such_path(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no {method} {}", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message)
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[expect(clippy::needless_pass_by_value, reason = "the layer calls it so")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    tracing::error!(panic = text, "a handler panicked, which is a bug");
    let message = "the server failed to answer, which is a bug";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
}

/// Seconds since 1970.
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn boom() -> Response {
        panic!("the cat's name is Molly");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_object_that_tells_nothing() {
        let routes = wrapped(
            Router::new().route("/", get(boom)),
            Limits::default().body_pause,
        );
        for _ in 0..2 {
            let request = Request::get("/").body(Body::empty()).unwrap();
            let response = routes.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert!(response.headers().contains_key("x-request-id"));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"]["type"], "api_error");
            assert!(!body.to_string().contains("Molly"));
        }
    }
}
