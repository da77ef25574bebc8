//! The manifests and templates that are part of the program. A test holds the lists to the folder.

/// Ids and manifests.
pub(super) const MANIFESTS: &[(&str, &str)] = &[
    (
        "all-minilm-l6-v2",
        include_str!("../../models/all-minilm-l6-v2.toml"),
    ),
    (
        "codellama-13b-instruct",
        include_str!("../../models/codellama-13b-instruct.toml"),
    ),
    (
        "codellama-7b-instruct",
        include_str!("../../models/codellama-7b-instruct.toml"),
    ),
    (
        "llama-3-8b-instruct",
        include_str!("../../models/llama-3-8b-instruct.toml"),
    ),
    (
        "mistral-7b-instruct",
        include_str!("../../models/mistral-7b-instruct.toml"),
    ),
    (
        "smollm2-135m-instruct",
        include_str!("../../models/smollm2-135m-instruct.toml"),
    ),
];

/// Names and texts of chat templates.
pub(super) const TEMPLATES: &[(&str, &str)] = &[
    (
        "codellama.jinja",
        include_str!("../../models/templates/codellama.jinja"),
    ),
    (
        "llama3.jinja",
        include_str!("../../models/templates/llama3.jinja"),
    ),
    (
        "mistral-v1.jinja",
        include_str!("../../models/templates/mistral-v1.jinja"),
    ),
    (
        "mistral.jinja",
        include_str!("../../models/templates/mistral.jinja"),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Not models: what the router knows of others' models.
    const TABLES: [&str; 3] = ["aliases.toml", "prices.toml", "quality.toml"];

    /// The files of a folder of the project that end in `extension`.
    fn files(folder: &str, extension: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let names = std::fs::read_dir(folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(extension)).collect()
    }

    #[test]
    fn the_lists_are_the_folders() {
        let listed = super::MANIFESTS
            .iter()
            .map(|(id, _)| format!("{id}.toml"))
            .chain(TABLES.map(ToOwned::to_owned))
            .collect();
        assert_eq!(files("models", ".toml"), listed);
        let listed = super::TEMPLATES
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        assert_eq!(files("models/templates", ".jinja"), listed);
    }
}
