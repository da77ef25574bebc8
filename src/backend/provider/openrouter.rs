//! OpenRouter's own words: what is said of the providers behind it. Whoever says something can only narrow what the
//! others said.

use serde_json::{Map, Value, json};

use super::options::{
    AutoRouter, CallOptions, MaxPrice, ProviderOptions, ProviderPreferences, Retention,
};
use crate::egress::Privacy;

/// The model that chooses another.
const AUTO: &str = "openrouter/auto";

/// Adds what OpenRouter alone understands to the body of a request for `model`. `asked` is the client's own `provider`.
///
/// Errors: what is wrong with that.
pub(super) fn add_own_words(
    body: &mut Map<String, Value>,
    (options, call): (&ProviderOptions, &CallOptions),
    model: &str,
    asked: Option<&Value>,
    privacy: Privacy,
) -> Result<(), String> {
    let preferences = [&call.preferences, &options.preferences];
    let provider = provider_object(asked, preferences, options.retention, privacy)?;
    body.insert("provider".to_owned(), provider);
    if let Some(auto) = call.preferences.auto.as_ref().filter(|_| model == AUTO) {
        let asked = body.get("plugins").and_then(Value::as_array).cloned();
        let plugins = with_auto_router(asked.unwrap_or_default(), auto);
        body.insert("plugins".to_owned(), plugins);
    }
    if !call.fallback_models.is_empty() {
        let models = [&[model.to_owned()], &*call.fallback_models].concat();
        body.insert("models".to_owned(), json!(models));
    }
    Ok(())
}

/// The `provider` object of a request.
///
/// - `asked` — the client's own
/// - `preferences` — ours, the more particular ones first
///
/// Errors: what is wrong with the client's.
pub(super) fn provider_object(
    asked: Option<&Value>,
    preferences: [&ProviderPreferences; 2],
    retention: Retention,
    privacy: Privacy,
) -> Result<Value, String> {
    let mut object = match asked {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(object)) => object.clone(),
        Some(other) => return Err(format!("provider must be an object, not {other}")),
    };
    for ours in preferences {
        if let Some(most) = &ours.max_price {
            cap_price(&mut object, most);
        }
        if let (Some(sort), false) = (ours.sort, object.contains_key("sort")) {
            object.insert("sort".to_owned(), json!(sort.name()));
        }
        if ours.allow_fallbacks == Some(false) {
            object.insert("allow_fallbacks".to_owned(), json!(false));
        }
        if ours.require_parameters == Some(true) {
            object.insert("require_parameters".to_owned(), json!(true));
        }
        if !ours.order.is_empty() && !object.contains_key("order") {
            object.insert("order".to_owned(), json!(ours.order));
        }
        if !ours.ignore.is_empty() {
            let mut ignored = names(&object, "ignore");
            ignored.extend(ours.ignore.iter().cloned());
            object.insert("ignore".to_owned(), json!(ignored));
        }
        if !ours.only.is_empty() {
            let mut only = names(&object, "only");
            if only.is_empty() {
                only.clone_from(&ours.only);
            } else {
                only.retain(|name| ours.only.contains(name));
            }
            if only.is_empty() {
                let allowed = ours.only.join(", ");
                return Err(format!(
                    "provider.only names none of those allowed here, which are {allowed}"
                ));
            }
            object.insert("only".to_owned(), json!(only));
        }
    }
    if retention == Retention::Never || privacy != Privacy::Any {
        object.insert("data_collection".to_owned(), json!("deny"));
        object.insert("zdr".to_owned(), json!(true));
    }
    Ok(Value::Object(object))
}

/// The client's plugins, and what its choosing model may choose from. What the client says of that itself goes no further
/// than what it may.
fn with_auto_router(asked: Vec<Value>, auto: &AutoRouter) -> Value {
    const ID: &str = "auto-router";
    let (own, mut plugins): (Vec<Value>, Vec<Value>) =
        asked.into_iter().partition(|plugin| plugin["id"] == ID);
    let mut plugin = match own.into_iter().next() {
        Some(Value::Object(plugin)) => plugin,
        _ => Map::from_iter([("id".to_owned(), json!(ID))]),
    };
    if !auto.allowed_models.is_empty() {
        plugin.insert("allowed_models".to_owned(), json!(auto.allowed_models));
    }
    if let (Some(tier), false) = (auto.cost_tier, plugin.contains_key("cost_tier")) {
        plugin.insert("cost_tier".to_owned(), json!(tier));
    }
    if plugin.len() > 1 {
        plugins.push(Value::Object(plugin));
    }
    Value::Array(plugins)
}

/// The texts of a list; a text alone is a list of one.
fn names(object: &Map<String, Value>, name: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match object.get(name) {
        Some(Value::Array(values)) => values.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn cap_price(object: &mut Map<String, Value>, most: &MaxPrice) {
    let mut prices = match object.get("max_price") {
        Some(Value::Object(prices)) => prices.clone(),
        _ => Map::new(),
    };
    for (name, most) in [("prompt", most.prompt), ("completion", most.completion)] {
        let most = most.to_usd();
        let asked = prices.get(name).and_then(number);
        let least = asked
            .filter(|asked| *asked >= 0.0)
            .map_or(most, |asked| asked.min(most));
        prices.insert(name.to_owned(), json!(least));
    }
    object.insert("max_price".to_owned(), Value::Object(prices));
}

/// A number, also one written as a text.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::provider::options::Sort;
    use crate::money::MicroUsd;

    fn made(asked: &Value, ours: &ProviderPreferences, privacy: Privacy) -> Result<Value, String> {
        let none = ProviderPreferences::default();
        provider_object(Some(asked), [ours, &none], Retention::Never, privacy)
    }

    #[test]
    fn nobody_keeps_a_prompt_unless_the_operator_says_so() {
        let none = ProviderPreferences::default();
        let strict = json!({"data_collection": "deny", "zdr": true});
        let loose = json!({"data_collection": "allow", "zdr": false});
        for privacy in [Privacy::Any, Privacy::ZdrOnly] {
            assert_eq!(made(&Value::Null, &none, privacy).unwrap(), strict);
            assert_eq!(made(&loose, &none, privacy).unwrap(), strict);
        }
        let by_account = |asked, privacy| {
            provider_object(asked, [&none, &none], Retention::AsTheAccountSays, privacy).unwrap()
        };
        assert_eq!(by_account(None, Privacy::Any), json!({}));
        assert_eq!(by_account(Some(&strict), Privacy::Any), strict);
        assert_eq!(by_account(Some(&loose), Privacy::ZdrOnly), strict);
    }

    #[test]
    fn each_side_only_narrows() {
        let ours = ProviderPreferences {
            max_price: Some(MaxPrice {
                prompt: MicroUsd(1_000_000),
                completion: MicroUsd(2_500_000),
            }),
            sort: Some(Sort::Price),
            allow_fallbacks: Some(false),
            require_parameters: Some(true),
            order: vec!["x".to_owned()],
            only: vec!["a".to_owned(), "b".to_owned()],
            ignore: vec!["c".to_owned()],
            auto: None,
        };
        let asked = json!({"max_price": {"prompt": "0.5", "completion": 9, "image": 1}, "sort": "latency",
            "allow_fallbacks": true, "only": ["b", "z"], "ignore": "d", "quantizations": ["fp8"]});
        let object = made(&asked, &ours, Privacy::Any).unwrap();
        assert_eq!(
            object["max_price"],
            json!({"prompt": 0.5, "completion": 2.5, "image": 1})
        );
        assert_eq!(object["sort"], "latency");
        assert_eq!(object["allow_fallbacks"], false);
        assert_eq!(object["require_parameters"], true);
        assert_eq!(object["order"], json!(["x"]));
        assert_eq!(object["only"], json!(["b"]));
        assert_eq!(object["ignore"], json!(["d", "c"]));
        assert_eq!(object["quantizations"], json!(["fp8"]));
        let error = made(&json!({"only": ["z"]}), &ours, Privacy::Any).unwrap_err();
        assert!(error.contains("a, b"), "{error}");
        let error = made(&json!(5), &ours, Privacy::Any).unwrap_err();
        assert!(error.contains("not 5"), "{error}");
    }

    #[test]
    fn a_model_that_chooses_is_told_from_what() {
        let auto = AutoRouter {
            allowed_models: vec!["openai/gpt-4*".to_owned()],
            cost_tier: Some("high"),
        };
        let told =
            json!({"id": "auto-router", "allowed_models": ["openai/gpt-4*"], "cost_tier": "high"});
        assert_eq!(with_auto_router(Vec::new(), &auto), json!([told]));
        // The client's own list goes no further than ours; how dear it may be is its own business.
        let web = json!({"id": "web"});
        let asked = json!({"id": "auto-router", "allowed_models": ["*"], "cost_tier": "low"});
        let both = json!([web, {"id": "auto-router", "allowed_models": ["openai/gpt-4*"], "cost_tier": "low"}]);
        assert_eq!(with_auto_router(vec![asked, web.clone()], &auto), both);
        let free = AutoRouter::default();
        assert_eq!(with_auto_router(vec![web.clone()], &free), json!([web]));
    }
}
