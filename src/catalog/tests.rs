use super::*;

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs::write(folder.join(name), text).unwrap();
}

const TINY: &str = r#"
id = "tiny"
aliases = ["tiny:1"]
[[sources]]
file.path = "weights/tiny.gguf"
"#;

#[test]
fn every_built_in_manifest_parses_and_names_are_unique() {
    let catalog = Catalog::load(None).unwrap();
    assert_eq!(catalog.manifests().len(), embedded::MANIFESTS.len());
    assert_eq!(catalog.default_model().unwrap().id, "smollm2-135m-instruct");
    let n_names: usize = catalog
        .manifests()
        .iter()
        .map(|m| 1 + m.aliases.len())
        .sum();
    assert_eq!(catalog.names.len(), n_names);
    for (alias, id) in [
        ("smollm2", "smollm2-135m-instruct"),
        ("SmolLM2:latest", "smollm2-135m-instruct"),
        ("smollm2:135m", "smollm2-135m-instruct"),
        ("llama3-8b", "llama-3-8b-instruct"),
        ("llama3:8b", "llama-3-8b-instruct"),
        ("llama3", "llama-3-8b-instruct"),
        ("mistral-7b", "mistral-7b-instruct"),
        ("mistral:7b", "mistral-7b-instruct"),
        ("codellama-7b", "codellama-7b-instruct"),
        ("codellama:7b", "codellama-7b-instruct"),
        ("codellama-13b", "codellama-13b-instruct"),
        ("all-minilm", "all-minilm-l6-v2"),
    ] {
        assert_eq!(catalog.find(alias).unwrap().id, id);
    }
    let llama = catalog.find("llama3").unwrap();
    assert!(
        llama
            .chat_template
            .as_ref()
            .unwrap()
            .contains("start_header_id")
    );
}

#[test]
fn an_unknown_name_is_told_its_neighbours() {
    let catalog = Catalog::load(None).unwrap();
    let near = catalog.find("smolm2").unwrap_err().to_string();
    assert_eq!(near, r#"there is no model "smolm2": did you mean smollm2?"#);
    let far = catalog.find("gpt-oss").unwrap_err().to_string();
    assert!(
        far.contains("smollm2-135m-instruct, ") || far.contains(", smollm2"),
        "{far}"
    );
    assert!(catalog.find("../../etc/passwd").is_err());
}

#[test]
fn a_folder_adds_and_replaces() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tiny.toml", TINY);
    let smol = r#"
        id = "smollm2-135m-instruct"
        aliases = ["smollm2"]
        [[sources]]
        hub.repo = "me/mine"
        hub.revision = "v1"
        hub.file = "sub/mine.gguf"
        [text]
        template = "mine.jinja"
    "#;
    write(folder.path(), "smollm2-135m-instruct.toml", smol);
    write(folder.path(), "templates/mine.jinja", "{{ bos_token }}");
    write(folder.path(), "README.md", "not a manifest");
    let catalog = Catalog::load(Some(folder.path())).unwrap();
    assert_eq!(catalog.manifests().len(), embedded::MANIFESTS.len() + 1);
    let tiny = catalog.find("tiny:1").unwrap();
    let path = folder.path().join("weights/tiny.gguf");
    assert_eq!(tiny.sources, [Source::File(LocalFile { path })]);
    let smol = catalog.find("smollm2").unwrap();
    assert_eq!(smol.sources[0].to_string(), "hub me/mine@v1/sub/mine.gguf");
    assert_eq!(smol.chat_template.as_deref(), Some("{{ bos_token }}"));
    assert!(
        catalog.find("smollm2:135m").is_err(),
        "the replaced manifest's aliases are gone"
    );
}

/// What is said about a manifest `tiny.toml` with this text.
fn complaint(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tiny.toml", text);
    let error = Catalog::load(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("tiny.toml"), "names the file: {error}");
    error
}

#[test]
fn a_model_of_several_files_is_listed_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = "0".repeat(64);
    let text = format!(
        "id = \"tiny\"\nkind = \"embedding\"\n[[sources]]\nhub.repo = 'a/b'\nhub.revision = 'main'\n\
         hub.files = [{{ file = 'q/t-00001-of-00002.gguf' }},\n\
                      {{ file = 'q/t-00002-of-00002.gguf', sha256 = '{sha256}' }}]\n\
         [[sources]]\npackage.name = 'p'\npackage.version = '1'\n\
         package.members = [{{ member = 'p/m.safetensors', name = 'x/m.safetensors', \
                               sha256 = '{sha256}', size_bytes = 4 }}]\n"
    );
    write(folder.path(), "tiny.toml", &text);
    let catalog = Catalog::load(Some(folder.path())).unwrap();
    let tiny = catalog.find("tiny").unwrap();
    assert_eq!(tiny.kind, Kind::Embedding);
    let shown: Vec<String> = tiny.sources.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["hub a/b@main, 2 files", "package p 1, p/m.safetensors"]
    );
    let names = |source: &Source| {
        let files = source.declared();
        files
            .iter()
            .map(|file| file.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&tiny.sources[0]),
        ["t-00001-of-00002.gguf", "t-00002-of-00002.gguf"]
    );
    assert_eq!(names(&tiny.sources[1]), ["x/m.safetensors"]);
    for (from, to, expected) in [
        (
            "hub.files",
            "hub.file = 'a.gguf'\nhub.files",
            "sources[0]: a hub source has either",
        ),
        ("t-00002-of", "t-00001-of", "same name"),
        (
            "name = 'x/",
            "name = '../",
            "'../m.safetensors\"".trim_start_matches('\''),
        ),
        ("size_bytes = 4", "colour = 4", "colour"),
        (
            "m.safetensors', sha",
            "m.json', sha",
            "sources[1]: none of its files",
        ),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let said = complaint(&changed);
        assert!(said.contains(expected), "{to}: {said}");
    }
    assert!(complaint(&text.replace("file = 'q/", "file = 'q/../q/")).contains("without `..`"));
    let missing = "id = \"tiny\"\n[[sources]]\nhub.repo = 'a/b'\nhub.revision = 'main'\n";
    assert!(complaint(missing).contains("a hub source has either"));
    let other = format!("{missing}hub.file = 'model.safetensors'\n");
    assert!(complaint(&other).contains("list several as hub.files"));
}

#[test]
fn a_bad_manifest_names_file_key_and_value() {
    for (from, to, expected) in [
        ("file.path", "file.pth", "pth"),
        ("[[sources]]", "colour = 1\n[[sources]]", "colour"),
        ("id = \"tiny\"", "", "id"),
        (
            "id = \"tiny\"",
            "id = \"tiny2\"",
            "name the file tiny2.toml",
        ),
        ("id = \"tiny\"", "id = \"../tiny\"", "\"../tiny\""),
        ("[\"tiny:1\"]", "[\"a/b\"]", "\"a/b\""),
        (
            "[\"tiny:1\"]",
            "[\"llama3\"]",
            "llama-3-8b-instruct has the name \"llama3\"",
        ),
        ("file.path", "ftp.path", "ftp"),
        (
            "[[sources]]",
            "context_default = 0\n[[sources]]",
            "context_default",
        ),
        (
            "[[sources]]",
            "[text]\ntemplate = \"../x.jinja\"\n[[sources]]",
            "\"../x.jinja\"",
        ),
        (
            "[[sources]]",
            "[text]\ntemplate = \"no.jinja\"\n[[sources]]",
            "built in are",
        ),
    ] {
        let text = TINY.replacen(from, to, 1);
        assert_ne!(text, TINY);
        let error = complaint(&text);
        assert!(error.contains(expected), "{to}: {error}");
    }
    assert!(complaint("id = \"tiny\"\nsources = []").contains("at least one"));
}

#[test]
fn path_tricks_in_sources_are_refused() {
    let hub = |repo: &str, revision: &str, file: &str| {
        format!(
            "id = \"tiny\"\n[[sources]]\nhub.repo = '{repo}'\nhub.revision = '{revision}'\n\
             hub.file = '{file}'\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tiny.toml", &hub("a/b", "main", "c/d.gguf"));
    assert!(Catalog::load(Some(folder.path())).is_ok());
    for (repo, revision, file) in [
        ("../b", "main", "d.gguf"),
        ("a/b/c", "main", "d.gguf"),
        ("a/b", "../../x", "d.gguf"),
        ("a/b", "main", "../d.gguf"),
        ("a/b", "main", "/d.gguf"),
        ("a/b", "main", "c\\d.gguf"),
        ("a/b", "main", "d.gguf?x.gguf"),
    ] {
        complaint(&hub(repo, revision, file));
    }
    let package = |name: &str, version: &str| {
        format!(
            "id = \"tiny\"\n[[sources]]\npackage.name = '{name}'\npackage.version = '{version}'\n\
             package.member = 'd.gguf'\npackage.sha256 = '{}'\npackage.size_bytes = 1\n",
            "0".repeat(64)
        )
    };
    for (name, version) in [
        ("--index-url", "1"),
        ("a", "-1"),
        ("a", "1 --pre"),
        ("a @ http://x", "1"),
    ] {
        assert!(
            complaint(&package(name, version)).contains("should be"),
            "{name} {version}"
        );
    }
    assert!(complaint(&package("a", "1").replace('0', "x")).contains("64 hexadecimal digits"));
}
