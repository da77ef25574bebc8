//! Privacy, whatever the configuration, the team, the key, the request and the faults: what may not leave does not.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use futures_util::{StreamExt, stream};
use ingle::caller::TeamId;
use ingle::egress::Privacy;
use ingle::keys::{self, Key};
use serde_json::{Value, json};

use super::{Hearth, Routing};
use crate::gguf_file::TinyLlama;
use crate::http::wire::{self, Reply};
use crate::pool::Wish;
use crate::provider_server::{ProviderServer, Recorded, Shape};
use crate::random::Random;

/// Configurations.
const N_WORLDS: u64 = 80;
/// Requests of each.
const N_REQUESTS: usize = 12;
const AT_ONCE: usize = 8;

const CLASSES: [Privacy; 3] = [Privacy::Any, Privacy::ZdrOnly, Privacy::LocalOnly];
const STRATEGIES: [&str; 4] = [
    "cost_optimized",
    "quality_first",
    "speed_first",
    "local_first",
];
/// Where an answer comes from, or does not. Nobody has `nothing`; `fast` is an alias; `broken` is a model here that cannot
/// be loaded.
const MODELS: [&str; 14] = [
    "auto",
    "tiny",
    "local:tiny",
    "broken",
    "nothing",
    "gpt-4",
    "fast",
    "openai:say:8",
    "openai:fault:cut-after-40",
    "openrouter:fault:status-503",
    "anthropic:fault:error-after-3",
    "keeping:fault:reset-after-5",
    "quiet:say:8",
    "ours:fault:close-at-once",
];

/// A configuration and what it allows.
struct World {
    toml: String,
    /// What holds for every request.
    class: Privacy,
    /// Whether the provider `ours` is one of our own hosts.
    is_ours: bool,
    teams: Vec<(String, Privacy)>,
    /// What each key may, and of which team it is.
    keys: Vec<(Privacy, Option<usize>, bool)>,
}

/// Mostly nothing is forbidden, so that there is something to forbid.
fn class(random: &mut Random) -> Privacy {
    if random.once_in(3) {
        random.pick(&CLASSES)
    } else {
        Privacy::Any
    }
}

impl World {
    fn new(random: &mut Random, theirs: &ProviderServer, ours: &ProviderServer) -> Self {
        let class = if random.once_in(4) {
            class(random)
        } else {
            Privacy::Any
        };
        let is_ours = random.once_in(2);
        let chain = (0..random.below(5)).map(|_| {
            let (provider, model) = random.pick(&[
                ("openai", "say:8"),
                ("openai", "fault:status-500"),
                ("openrouter", "say:8"),
                ("anthropic", "say:3"),
                ("keeping", "say:8"),
                ("quiet", "fault:empty-stream"),
                ("ours", "say:8"),
                ("local", "tiny"),
                ("local", "broken"),
            ]);
            format!("[{provider:?}, {model:?}]")
        });
        let chain = chain.collect::<Vec<_>>().join(", ");
        let mut toml = format!(
            "[router]\nprivacy = \"{class}\"\nstrategy = {:?}\nfallback = {}\nhedge_budget = {}\n\
             fallback_chain = [{chain}]\nlocal_preference = [\"tiny\"]\nteams_folder = \"TEAMS\"\n",
            random.pick(&STRATEGIES),
            random.pick(&["true", "true", "false"]),
            random.pick(&["0.0", "1.0"]),
        );
        if random.once_in(2) {
            let _ = writeln!(toml, "deadline_ms = {}", random.pick(&[1, 60, 2000]));
        }
        if random.once_in(2) {
            let _ = writeln!(toml, "local_timeout_ms = {}", random.pick(&[1, 40, 5000]));
        }
        if is_ours {
            let _ = writeln!(toml, "local_hosts = [\"{}\"]", ours.address());
        }
        let _ = writeln!(toml, "[router.aliases]\nfast = \"openai:say:1\"");
        for (name, dialect, shape, zdr) in [
            ("openai", "openai", Shape::OpenAi, false),
            ("openrouter", "openrouter", Shape::OpenRouter, true),
            ("anthropic", "anthropic", Shape::Anthropic, false),
            ("keeping", "compatible", Shape::OpenAi, false),
            ("quiet", "compatible", Shape::OpenAi, true),
            ("ours", "compatible", Shape::OpenAi, false),
        ] {
            let server = if name == "ours" { ours } else { theirs };
            // Every request says by its path through whom it went.
            let base_url = server.base_url(shape);
            let _ = writeln!(
                toml,
                "[providers.{name}]\ndialect = {dialect:?}\nbase_url = {base_url:?}\nzdr = {zdr}\n\
                 api_key = \"sk-{name}\"\nidle_timeout_ms = 500\ntotal_timeout_ms = 4000\n\
                 first_content_timeout_ms = 1000"
            );
        }
        Self {
            toml,
            class,
            is_ours,
            teams: (0..3)
                .map(|n| (format!("team{n}"), self::class(random)))
                .collect(),
            keys: (0..3)
                .map(|_| {
                    let team = random.once_in(2).then(|| random.below(3));
                    (self::class(random), team, random.once_in(2))
                })
                .collect(),
        }
    }

    fn write_teams(&self, folder: &Path, random: &mut Random) {
        for (name, class) in &self.teams {
            let folder = folder.join(name).join("config");
            fs::create_dir_all(&folder).unwrap();
            let yaml = format!(
                "llm_preferences:\n  privacy: {class}\n  strategy: {}\n  model_preferences: [{:?}, {:?}]\n",
                random.pick(&STRATEGIES),
                random.pick(&MODELS),
                random.pick(&MODELS),
            );
            fs::write(folder.join("llm_config.yaml"), yaml).unwrap();
        }
    }

    /// The keys themselves.
    fn write_keys(&self, home: &Path) -> Vec<String> {
        let add = |(n, (privacy, team, any_team)): (usize, &(Privacy, Option<usize>, bool))| {
            let mut key = Key::new(&format!("key{n}"), "2026-01-01");
            key.privacy = *privacy;
            key.team = team.map(|team| TeamId::new(&self.teams[team].0));
            key.any_team = *any_team;
            keys::add(home, key).unwrap()
        };
        self.keys.iter().enumerate().map(add).collect()
    }
}

/// A request, and how far its prompt may go.
struct Case {
    body: Value,
    headers: String,
    class: Privacy,
    marker: String,
}

impl Case {
    fn new(random: &mut Random, world: &World, keys: &[String], number: usize) -> Self {
        let key = random.below(keys.len());
        let (of_key, own, any_team) = world.keys[key];
        let mut class = world.class.tightened(of_key);
        let marker = format!("marker-{number}-end");
        let mut ingle = json!({});
        let named = random.once_in(2).then(|| random.below(3));
        let in_body = random.once_in(2);
        let mut headers = format!("authorization: Bearer {}\r\n", keys[key]);
        if let Some(team) = named {
            let name = &world.teams[team].0;
            if in_body {
                ingle["team"] = json!(name);
            } else {
                let _ = write!(headers, "x-ingle-team: {name}\r\n");
            }
        }
        // The key's own team wins, unless it may speak for any; a key of none that may not speaks for none.
        let team = if any_team { named.or(own) } else { own };
        if let Some(team) = team {
            class = class.tightened(world.teams[team].1);
        }
        if random.once_in(3) {
            let said = self::class(random);
            ingle["privacy"] = json!(said.to_string());
            class = class.tightened(said);
        }
        if random.once_in(3) {
            let said = self::class(random);
            let _ = write!(headers, "x-ingle-privacy: {said}\r\n");
            class = class.tightened(said);
        }
        if random.once_in(2) {
            ingle["enable_fallback"] = json!(random.once_in(2));
        }
        if random.once_in(3) {
            ingle["deadline_ms"] = json!(random.pick(&[1, 100, 3000]));
        }
        if random.once_in(3) {
            let models = random.pick(&[&["openai:*", "openrouter:*"][..], &["*"], &["local:*"]]);
            ingle["preferences"] = json!({"acceptable_models": models});
        }
        let body = json!({
            "model": random.pick(&MODELS),
            "messages": [{"role": "user", "content": marker}],
            "max_tokens": 8,
            "stream": random.once_in(2),
            "ingle": ingle,
        });
        Self {
            body,
            headers,
            class,
            marker,
        }
    }

    /// Plans, then asks, for vectors and for an answer; a plan is an answer too, and asks nobody.
    async fn ask(&self, routing: &Routing) -> Reply {
        let request = wire::request(&self.body.to_string());
        let request = request.replacen("\r\n", &format!("\r\n{}", self.headers), 1);
        let plan = request.replacen("/v1/chat/completions", "/v1/route/plan", 1);
        let plan = wire::exchange(routing.address, &plan).await;
        if plan.status == 200 {
            assert_eq!(plan.json()["privacy"], self.class.to_string(), "{plan:?}");
        }
        let vectors = json!({
            "model": self.body["model"],
            "input": [self.marker],
            "ingle": self.body["ingle"],
        });
        let vectors = wire::request(&vectors.to_string());
        let vectors = vectors.replacen("\r\n", &format!("\r\n{}", self.headers), 1);
        let vectors = vectors.replacen("/v1/chat/completions", "/v1/embeddings", 1);
        wire::exchange(routing.address, &vectors).await;
        wire::exchange(routing.address, &request).await
    }
}

/// What left, by class, and what was answered here of what may not leave.
#[derive(Debug, Default)]
struct Counts {
    left: [usize; 3],
    answered_here: usize,
}

/// Whether a prompt of `class` may be where it arrived.
fn may_arrive(class: Privacy, request: &Recorded, is_ours: bool) -> bool {
    let sender = request
        .header("authorization")
        .or(request.header("x-api-key"));
    let sender = sender.unwrap_or_default();
    match class {
        Privacy::Any => true,
        Privacy::ZdrOnly => {
            is_ours || sender.ends_with("sk-quiet") || sender.ends_with("sk-openrouter")
        }
        Privacy::LocalOnly => is_ours,
    }
}

async fn play(hearth: &Hearth, seed: u64) -> Counts {
    let mut random = Random::new(seed);
    let (theirs, ours) = (ProviderServer::start(), ProviderServer::start());
    let world = World::new(&mut random, &theirs, &ours);
    let home = tempfile::tempdir().unwrap();
    let teams = home.path().join("teams");
    world.write_teams(&teams, &mut random);
    let keys = world.write_keys(home.path());
    let toml = world.toml.replace("TEAMS", teams.to_str().unwrap());
    let routing = Routing::start_in(home, hearth, &toml, |_| {}).await;
    let cases: Vec<_> = (0..N_REQUESTS)
        .map(|number| Case::new(&mut random, &world, &keys, number))
        .collect();
    let asked = stream::iter(&cases).map(|case| case.ask(&routing));
    let replies: Vec<Reply> = asked.buffered(4).collect().await;

    let mut counts = Counts::default();
    for (server, is_ours) in [(&theirs, false), (&ours, world.is_ours)] {
        for request in server.requests() {
            let text = request.body.to_string() + &request.path;
            let case = cases.iter().find(|case| text.contains(&case.marker));
            let case = case.unwrap_or_else(|| panic!("{seed}: whose is {request:?}?"));
            let may = may_arrive(case.class, &request, is_ours);
            assert!(
                may,
                "{seed}: {} arrived: {request:?}\n{}",
                case.class, world.toml
            );
            counts.left[case.class as usize] += 1;
        }
        let nothing_may = !is_ours && cases.iter().all(|case| case.class == Privacy::LocalOnly);
        assert!(
            !nothing_may || server.n_connections() == 0,
            "{seed}: a socket"
        );
    }
    for (case, reply) in cases.iter().zip(&replies) {
        let is_private = case.class == Privacy::LocalOnly;
        counts.answered_here += usize::from(is_private && reply.status == 200);
        if is_private && !world.is_ours {
            // What cannot be answered here is refused, and the refusal says why.
            let told =
                reply.status == 200 || !reply.error()["message"].as_str().unwrap().is_empty();
            assert!(told, "{seed}: {reply:?}");
        }
    }
    log(routing.home.path(), world.is_ours, seed);
    routing.end().await;
    counts
}

/// The egress log says the same.
fn log(home: &Path, is_ours: bool, seed: u64) {
    let text = fs::read_to_string(home.join("egress.jsonl")).unwrap();
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let is_private = entry["class"] == "local_only";
        let to_ours = is_ours && entry["provider"] == "ours";
        assert!(!is_private || to_ours, "{seed}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_may_not_leave_does_not_whatever_is_configured_asked_and_broken() {
    let hearth = Hearth::new(Wish::default());
    hearth.house.serve("broken", &TinyLlama::default());
    fs::write(hearth.house.path("broken"), b"nothing of what it was").unwrap();
    let worlds = stream::iter(0..N_WORLDS).map(|seed| play(&hearth, seed));
    let all: Vec<Counts> = worlds.buffer_unordered(AT_ONCE).collect().await;
    let sum = |count: fn(&Counts) -> usize| all.iter().map(count).sum::<usize>();
    let (any, zdr) = (sum(|counts| counts.left[0]), sum(|counts| counts.left[1]));
    let (private, here) = (
        sum(|counts| counts.left[2]),
        sum(|counts| counts.answered_here),
    );
    // There was something to find: what may leave does, and what may not is answered where it can be.
    assert!(
        any > 100 && zdr > 10 && private > 3 && here > 20,
        "{any} {zdr} {private} {here}"
    );
}
