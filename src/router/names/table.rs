//! The table of names: `models/aliases.toml`, and a file over it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use super::matches_glob;
use crate::config::document::{self, Node, Problem, Reading};

/// The table of the program.
const EMBEDDED: &str = include_str!("../../../models/aliases.toml");
/// No table is longer. Units: bytes.
const MAX_BYTES: u64 = 4 << 20;

/// What models are called where.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    models: BTreeMap<String, Model>,
    /// Other names for the same, and providers' names: to the names of `models`.
    also: BTreeMap<String, String>,
    /// Globs of bare names, with the name's form in each column.
    vendors: Vec<(String, BTreeMap<String, String>)>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// What each provider calls it.
    columns: BTreeMap<String, String>,
    family: Vec<String>,
}

impl Table {
    pub(super) fn embedded() -> Self {
        static TABLE: LazyLock<Table> = LazyLock::new(|| {
            let mut table = Table::default();
            // A test reads it too.
            if let Ok(node) = Node::from_toml(EMBEDDED, "aliases.toml") {
                table.read(&Reading::new("aliases.toml"), &node);
            }
            table
        });
        TABLE.clone()
    }

    /// Extends and replaces entries by those of the file at `path`.
    pub(super) fn extend(&mut self, path: &Path) -> Result<(), Vec<Problem>> {
        let file = path.display().to_string();
        let text = document::read_bounded(path, MAX_BYTES).map_err(|problem| vec![problem])?;
        let node = Node::from_toml(&text, &file).map_err(|problem| vec![problem])?;
        let reading = Reading::new(file);
        self.read(&reading, &node);
        reading.finish(())
    }

    fn read(&mut self, reading: &Reading, node: &Node) {
        let root = reading.table(node, "");
        root.only(&["date", "vendors", "models"]);
        if let Some(vendors) = root.table("vendors") {
            for (glob, forms) in vendors.tables() {
                let forms = texts(&forms, &[]);
                self.vendors.retain(|(known, _)| known != glob);
                self.vendors.push((glob.to_owned(), forms));
            }
        }
        let Some(models) = root.table("models") else {
            return;
        };
        for (name, table) in models.tables() {
            let columns = texts(&table, &["also", "family"]);
            let also = table.texts("also").unwrap_or_default();
            let usual = || [name.to_owned(), format!("{name}-*")].into();
            let family = table.texts("family").unwrap_or_else(usual);
            for other in also {
                self.also.insert(other, name.to_owned());
            }
            for called in columns.values() {
                // A family's name stands for one of its members, which keeps its own.
                let known = self.also.entry(called.clone());
                known.or_insert_with(|| name.to_owned());
            }
            self.models
                .insert(name.to_owned(), Model { columns, family });
        }
    }

    /// The table's own name for what somebody calls `name`.
    pub(super) fn name_of(&self, name: &str) -> Option<&str> {
        if let Some((own, _)) = self.models.get_key_value(name) {
            return Some(own);
        }
        self.also.get(name).map(String::as_str)
    }

    /// What the column's provider calls `name`.
    pub(super) fn called(&self, column: &str, name: &str) -> Option<String> {
        match self.name_of(name) {
            Some(own) => self.models.get(own)?.columns.get(column).cloned(),
            None if name.contains('/') => None,
            None => self
                .by_vendor(name)?
                .get(column)
                .map(|form| put(form, name)),
        }
    }

    /// Where the model `name` is found, and what it is called there.
    pub(super) fn columns(&self, name: &str) -> Vec<(&str, String)> {
        if let Some(model) = self.name_of(name).and_then(|own| self.models.get(own)) {
            let columns = model.columns.iter();
            return columns
                .map(|(column, called)| (&**column, called.clone()))
                .collect();
        }
        let forms = self.by_vendor(name).into_iter().flatten();
        forms
            .map(|(column, form)| (&**column, put(form, name)))
            .collect()
    }

    fn by_vendor(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        let mut vendors = self.vendors.iter();
        let found = vendors.find(|(glob, _)| matches_glob(glob, name));
        found.map(|(_, forms)| forms)
    }

    /// The globs of the models that `name` means in a list.
    pub(super) fn family(&self, name: &str) -> BTreeSet<String> {
        let mut globs = BTreeSet::from([name.to_owned()]);
        if let Some(model) = self.models.get(name) {
            globs.extend(model.family.iter().cloned());
        } else if let Some(model) = self.also.get(name).and_then(|own| self.models.get(own)) {
            // Another name for one model is that model.
            globs.extend(model.columns.values().cloned());
        }
        globs
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }
}

/// The form with the name in place of its `*`.
fn put(form: &str, name: &str) -> String {
    form.replacen('*', name, 1)
}

/// All texts of a table but those under `except`.
fn texts(table: &document::Table<'_>, except: &[&str]) -> BTreeMap<String, String> {
    let entries = table.entries();
    let texts = entries.filter(|entry| !except.contains(&&*entry.key));
    texts
        .filter_map(|entry| {
            let text = table.text(&entry.key)?;
            Some((entry.key.clone(), text.to_owned()))
        })
        .collect()
}
