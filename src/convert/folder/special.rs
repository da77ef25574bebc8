//! The tokens that have a part to play, whether texts begin and end with them, and the chat template.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::super::{Error, files};
use super::config::Config;
use super::vocabulary::TokenizerJson;
use super::write_texts;
use crate::gguf::{Value, Writer};

/// Parts to play, as the folder calls them and as the file does.
const PARTS: [(&str, &str); 7] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    // The file's own spelling.
    ("sep", "seperator"),
    ("pad", "padding"),
    ("cls", "cls"),
    ("mask", "mask"),
];
/// The longest template read.
const MAX_TEMPLATE_BYTES: u64 = 1 << 24;

/// What is known of special tokens.
#[derive(Clone, Default)]
pub(super) struct Special {
    /// By the folder's name of the part.
    pub(super) ids: BTreeMap<&'static str, u32>,
    /// Whether they are added to a text.
    pub(super) adds: BTreeMap<&'static str, bool>,
    /// By name; the one without is the default.
    templates: Vec<(Option<String>, String)>,
}

impl Special {
    /// `n_known` is how many tokens there are where ids beyond them are left out.
    ///
    /// Errors: a template cannot be read.
    pub(super) fn read(
        folder: &Path,
        settings: Option<Map<String, Json>>,
        json: Option<&TokenizerJson>,
        config: &Config,
        n_known: Option<u64>,
    ) -> Result<Self, Error> {
        let mut this = Self::default();
        let mut parts: Vec<&'static str> = PARTS.iter().map(|(part, _)| *part).collect();
        let mut settings = settings.unwrap_or_default();
        let says_anything = !settings.is_empty();
        if let Some(json) = json {
            this.read_processor(json, &mut settings, &mut parts);
        }
        if says_anything {
            this.templates = templates(folder, &settings)?;
            for part in &parts {
                if let Some(Json::Bool(adds)) = settings.get(&format!("add_{part}_token")) {
                    this.adds.insert(part, *adds);
                }
                let text = token_text(&settings, part);
                let added = json.into_iter().flat_map(|json| &json.added_tokens);
                let id = text.and_then(|text| added.into_iter().find(|it| it.content == text));
                this.set(part, id.map(|added| added.id), n_known);
            }
        }
        for part in parts {
            this.set(part, config.token_id(part), n_known);
        }
        Ok(this)
    }

    /// The first to say it is believed.
    fn set(&mut self, part: &'static str, id: Option<u64>, n_known: Option<u64>) {
        let known = id.filter(|id| n_known.is_none_or(|n_known| *id < n_known));
        if let Some(id) = known.and_then(|id| u32::try_from(id).ok()) {
            self.ids.entry(part).or_insert(id);
        }
    }

    /// What a processor of templates puts around a text.
    fn read_processor(
        &mut self,
        json: &TokenizerJson,
        settings: &mut Map<String, Json>,
        parts: &mut Vec<&'static str>,
    ) {
        let all = match json.post_processor.get("processors") {
            Some(Json::Array(all)) => &all[..],
            _ => std::slice::from_ref(&json.post_processor),
        };
        let is_template =
            |it: &&Json| it.get("type").and_then(Json::as_str) == Some("TemplateProcessing");
        for processor in all.iter().filter(is_template) {
            let list = |key| {
                processor
                    .get(key)
                    .and_then(Json::as_array)
                    .map_or(&[][..], |it| it)
            };
            let (single, pair) = (list("single"), list("pair"));
            if single.len() < 2 {
                continue;
            }
            let (first, last) = (special_id(single.first()), special_id(single.last()));
            if let Some(first) = first {
                // Where it is not the text said to begin, it is a beginning of another kind.
                if text(settings, "bos") != Some(first) && text(settings, "cls") != Some(first) {
                    for part in ["bos_token", "cls_token"] {
                        if !is_said(settings, part) {
                            settings.insert(part.to_owned(), Json::from(first));
                        }
                    }
                }
                let begins = ["bos", "cls"].map(|part| text(settings, part) == Some(first));
                self.adds.insert("bos", begins.contains(&true));
            }
            if let Some(last) = last {
                if text(settings, "eos") != Some(last) {
                    // What ends an answer otherwise ends a turn.
                    if let Some(eos) = settings.get("eos_token").cloned() {
                        parts.push("eot");
                        settings.insert("eot_token".to_owned(), eos);
                    }
                    settings.insert("eos_token".to_owned(), Json::from(last));
                }
                self.adds.insert("eos", true);
            }
            self.read_pair(pair, (first, last), settings);
        }
    }

    /// Whether two texts have a separator between them.
    fn read_pair(
        &mut self,
        pair: &[Json],
        (first, last): (Option<&str>, Option<&str>),
        settings: &mut Map<String, Json>,
    ) {
        let mut inner = pair;
        if first.is_some() && special_id(inner.first()) == first {
            inner = inner.get(1..).unwrap_or_default();
        }
        if last.is_some() && special_id(inner.last()) == last {
            inner = inner.get(..inner.len() - 1).unwrap_or_default();
        }
        let sequence = |it: Option<&Json>, name| {
            it.and_then(|it| it.pointer("/Sequence/id"))
                .and_then(Json::as_str)
                == Some(name)
        };
        let [_, between @ .., _] = inner else {
            return;
        };
        if between.is_empty() || !sequence(inner.first(), "A") || !sequence(inner.last(), "B") {
            return;
        }
        let separators = [text(settings, "sep"), text(settings, "eos")];
        let separates =
            |it: Option<&Json>| special_id(it).is_some_and(|id| separators.contains(&Some(id)));
        let by_first = last.is_none() && separates(between.first());
        let by_second = between.len() == 2 && separates(between.get(1));
        let adds = by_first || by_second;
        self.adds.insert("sep", adds);
        if adds
            && !is_said(settings, "sep_token")
            && let Some(eos) = settings.get("eos_token").cloned()
        {
            settings.insert("sep_token".to_owned(), eos);
        }
    }

    /// Writes the keys.
    pub(super) fn write(&self, writer: &mut Writer) {
        for (part, id) in &self.ids {
            let named = PARTS.iter().find(|(its, _)| its == part);
            let name = named.map_or(*part, |(_, name)| name);
            writer.key(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(*id));
        }
        for (part, adds) in &self.adds {
            // The file has no keys for others.
            if matches!(*part, "bos" | "eos" | "sep") {
                writer.key(
                    &format!("tokenizer.ggml.add_{part}_token"),
                    Value::Bool(*adds),
                );
            }
        }
        let named = self.templates.iter().filter_map(|(name, _)| name.as_ref());
        if named.clone().next().is_some() {
            write_texts(
                writer,
                "tokenizer.chat_templates",
                named.map(String::as_bytes),
            );
        }
        for (name, template) in &self.templates {
            let key = match name {
                Some(name) => format!("tokenizer.chat_template.{name}"),
                None => "tokenizer.chat_template".to_owned(),
            };
            writer.key(&key, Value::Str(template.as_bytes()));
        }
    }
}

/// The token an entry of a template is.
fn special_id(entry: Option<&Json>) -> Option<&str> {
    entry?.pointer("/SpecialToken/id")?.as_str()
}

/// The text of a token that is given as such. The converter takes one given as an object for another.
fn text<'a>(settings: &'a Map<String, Json>, part: &str) -> Option<&'a str> {
    settings.get(&format!("{part}_token"))?.as_str()
}

fn is_said(settings: &Map<String, Json>, key: &str) -> bool {
    settings
        .get(key)
        .is_some_and(|it| !it.is_null() && *it != "")
}

/// The text of a token, given as such or as an object's content.
fn token_text(settings: &Map<String, Json>, part: &str) -> Option<String> {
    let entry = settings.get(&format!("{part}_token"))?;
    let text = entry.as_str().or_else(|| entry.get("content")?.as_str());
    text.map(str::to_owned)
}

/// The chat templates of the folder: in the settings, else in a file of their own.
fn templates(
    folder: &Path,
    settings: &Map<String, Json>,
) -> Result<Vec<(Option<String>, String)>, Error> {
    let said = match settings.get("chat_template") {
        Some(Json::Null) | None => in_a_file(folder)?,
        Some(said) => Some(said.clone()),
    };
    let mut templates = Vec::new();
    match said {
        Some(Json::String(template)) => templates.push((None, template)),
        Some(Json::Array(choices)) => {
            for choice in choices {
                let text = |key| choice.get(key).and_then(Json::as_str);
                let (Some(name), Some(template)) = (text("name"), text("template")) else {
                    continue;
                };
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                let name: String = name.chars().map(plain).collect();
                let name = Some(name).filter(|name| name != "default");
                if templates.iter().all(|(its, _)| *its != name) && name.as_deref() != Some("") {
                    templates.push((name, template.to_owned()));
                }
            }
        }
        _ => {}
    }
    Ok(templates)
}

fn in_a_file(folder: &Path) -> Result<Option<Json>, Error> {
    let path = folder.join("chat_template.jinja");
    match files::read(&path, MAX_TEMPLATE_BYTES, "") {
        Ok(bytes) => {
            let text =
                String::from_utf8(bytes).map_err(|_| Error::content(&path, "is not UTF-8"))?;
            return Ok(Some(Json::String(text)));
        }
        Err(Error::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let json: Option<Map<String, Json>> = files::opt_json(&folder.join("chat_template.json"))?;
    Ok(json.and_then(|mut json| json.remove("chat_template")))
}
