//! Manifests of models that came in bundles: `manifests/<id>.toml` and `manifests/templates/<id>.jinja`
//! in the store. They stand where the catalogue does not know such a model from where it came from.

use std::fs;
use std::path::{Path, PathBuf};

use super::address::Address;
use super::bundle::FromCatalogue;
use super::checked::{Id, TemplateName};
use super::disk;
use super::error::Error;
use super::manifest::{RawManifest, Source};

/// Where they lie.
pub(super) fn folder(home: &Path) -> PathBuf {
    home.join("manifests")
}

/// What the template of a model is called there, whatever it was called before.
fn template_name(id: &str) -> String {
    format!("{id}.jinja")
}

/// A manifest's text as it goes into a bundle: without sources that are files of this machine and
/// without passwords and signatures in addresses, and with the template under the model's own name.
///
/// Errors: one clause.
pub(super) fn outgoing(id: &str, text: &str) -> Result<String, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("its manifest cannot be read: {error}");
    let mut table: toml::Table = toml::from_str(text).map_err(|error| unreadable(&error))?;
    if let Some(sources) = table.get_mut("sources").and_then(toml::Value::as_array_mut) {
        sources.retain(|source| source.get("file").is_none());
        for source in sources
            .iter_mut()
            .filter_map(|source| source.get_mut("url"))
        {
            hide_secrets(source);
            let files = source.get_mut("files").and_then(toml::Value::as_array_mut);
            files.into_iter().flatten().for_each(hide_secrets);
        }
    }
    let text = table.get_mut("text").and_then(toml::Value::as_table_mut);
    if let Some(template) = text.and_then(|text| text.get_mut("template")) {
        *template = template_name(id).into();
    }
    toml::to_string(&table).map_err(|error| unreadable(&error))
}

/// Shortens the address of a file to what may be shown of it. It names the same file then.
fn hide_secrets(file: &mut toml::Value) {
    if let Some(toml::Value::String(url)) = file.get_mut("url")
        && let Ok(address) = Address::new(url)
    {
        *url = address.to_string();
    }
}

/// The places a model may come from, by the manifest a bundle brought.
///
/// Errors: it is not one that may be installed; one clause.
pub(super) fn incoming(model: &FromCatalogue) -> Result<Vec<Source>, String> {
    let FromCatalogue { id, manifest, .. } = model;
    let wrong = |reason: &dyn std::fmt::Display| format!("its manifest of {id}: {reason}");
    let raw: RawManifest = toml::from_str(manifest)
        .map_err(|error| wrong(&error.to_string().trim_end().replace('\n', " ")))?;
    if raw.id != *id {
        return Err(wrong(&format_args!("id is {:?}", raw.id.as_str())));
    }
    let expected = model.template.as_ref().map(|_| template_name(id.as_str()));
    let got = raw.text.template.as_ref().map(TemplateName::as_str);
    if got != expected.as_deref() {
        return Err(wrong(
            &"text.template is not the template that came with it",
        ));
    }
    let mut sources = Vec::with_capacity(raw.sources.len());
    for source in raw.sources {
        let source = source
            .checked(id, Path::new(""))
            .map_err(|reason| wrong(&reason))?;
        if matches!(source, Source::File(_)) {
            return Err(wrong(&"one of its sources is a file of another machine"));
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Writes a model's manifest and template. The template comes first: a manifest never names one that
/// is not there.
pub(super) fn write(home: &Path, model: &FromCatalogue) -> Result<(), Error> {
    let folder = folder(home);
    let templates = folder.join("templates");
    fs::create_dir_all(&templates).map_err(|error| Error::io("creating", &templates, error))?;
    let id = model.id.as_str();
    let manifest = (folder.join(format!("{id}.toml")), Some(&model.manifest));
    let template = (templates.join(template_name(id)), model.template.as_ref());
    for (path, text) in [template, manifest] {
        let written = text.map_or(Ok(()), |text| disk::write_atomic(&path, text));
        written.map_err(|error| Error::io("writing", &path, error))?;
    }
    Ok(())
}

/// Removes what a bundle brought with a model; nothing there is no error.
pub(super) fn remove(home: &Path, id: &Id) -> Result<(), Error> {
    let folder = folder(home);
    let manifest = folder.join(format!("{id}.toml"));
    let template = folder.join("templates").join(template_name(id.as_str()));
    for path in [manifest, template] {
        disk::remove_all(&path).map_err(|error| Error::io("removing", &path, error))?;
    }
    Ok(())
}
