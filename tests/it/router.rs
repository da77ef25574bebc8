//! The whole router: a real engine, scripted providers, real money.

use ingle::backend::local::LocalBackend;
use ingle::config::router::RouterSettings;
use ingle::egress::Egress;
use ingle::router::money::Money;
use ingle::router::names::Names;
use ingle::router::prices::{Price, Prices};
use ingle::router::quality::Quality;
use ingle::router::teams::Teams;
use ingle::router::{Router, RouterOptions};

/// A router that knows nobody but the engine, and forgets what was spent.
pub(crate) fn local_only(local: LocalBackend) -> Router {
    let nowhere = tempfile::tempdir().unwrap();
    Router::new(options(local, RouterSettings::default(), nowhere.path()))
}

/// Everything usual, with prices of a folder.
fn options(local: LocalBackend, settings: RouterSettings, home: &std::path::Path) -> RouterOptions {
    RouterOptions {
        local,
        names: Names::new(&settings).unwrap(),
        teams: Teams::open(settings.teams_folder.clone(), &settings.teams).unwrap(),
        quality: Quality::new(None).unwrap(),
        prices: Prices::load(home, Price::FREE).unwrap(),
        money: Money::unrecorded([]),
        egress: Egress::new(false),
        offline: false,
        providers: Vec::new(),
        settings,
    }
}
