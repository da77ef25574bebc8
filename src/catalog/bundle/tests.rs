use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::Digest;
use tar::{EntryType, Header};

use super::*;
use crate::catalog::{Catalog, Import, Store};

/// What `tiny` holds: no multiple of a block, so that there is padding.
const WEIGHTS: &[u8] = b"GGUF and some weights";
const TEMPLATE: &str = "{{ messages[0].content }}";

fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// A machine: a store, and manifests of its own.
struct House {
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(house.path("catalogue")).unwrap();
        house
    }

    /// One where the model `tiny` was fetched from the hub.
    fn with_tiny() -> Self {
        let house = Self::new();
        let manifest = "id = \"tiny\"\naliases = [\"t\", \"llama3\"]\n\
            [[sources]]\nfile.path = \"/nowhere.gguf\"\n\
            [[sources]]\nhub.repo = \"a/b\"\nhub.revision = \"main\"\nhub.file = \"q/c.gguf\"\n\
            [text]\ntemplate = \"mine.jinja\"\nstop_tokens = [\"<end>\"]\n\
            [license]\nname = \"Terms of A\"\ngated = true\n";
        // The alias is another model's in the built-in catalogue: here that is replaced.
        let llama = "id = \"llama-3-8b-instruct\"\n[[sources]]\nfile.path = \"/nowhere.gguf\"\n";
        house.write("catalogue/tiny.toml", manifest.as_bytes());
        house.write("catalogue/llama-3-8b-instruct.toml", llama.as_bytes());
        house.write("catalogue/templates/mine.jinja", TEMPLATE.as_bytes());
        let receipt = format!(
            "source = \"hub a/b@main/q/c.gguf\"\ncommit = \"abc\"\n[[file]]\nname = \"tiny.gguf\"\n\
             from = \"q/c.gguf\"\nsha256 = \"{}\"\nsize_bytes = {}\n",
            sha256(WEIGHTS),
            WEIGHTS.len()
        );
        house.write("home/models/tiny/receipt.toml", receipt.as_bytes());
        house.write("home/models/tiny/tiny.gguf", WEIGHTS);
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::File::create(path).unwrap();
        file.write_all(bytes).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
        file.set_modified(long_ago).unwrap();
    }

    fn store(&self) -> Store {
        Store::open(&self.path("home")).unwrap()
    }

    fn catalog(&self) -> Catalog {
        Catalog::load_with(Some(&self.path("home")), Some(&self.path("catalogue"))).unwrap()
    }

    fn pack(&self, models: &[&str], programs: &[PathBuf]) -> Result<PathBuf, BundleError> {
        let out = self.path("out.tar");
        let models: Vec<String> = models.iter().map(|name| (*name).to_owned()).collect();
        let packing = Packing {
            store: &self.store(),
            catalog: &self.catalog(),
            models: &models,
            programs,
        };
        create(&out, packing, &mut |_, _| {}).map(|_| out)
    }

    fn install(&self, bundle: &Path) -> Result<Installed, BundleError> {
        let here = (&self.store(), &self.catalog());
        install(bundle, here, Some(&self.path("bin")), &mut |_, _| {})
    }

    /// What is said about a bundle; nothing of it is visible then.
    fn refused(&self, bytes: &[u8]) -> String {
        let path = self.path("in.tar");
        fs::write(&path, bytes).unwrap();
        let error = self.install(&path).unwrap_err().to_string();
        let checked = verify(&path, &mut |_, _| {});
        assert!(
            self.store().installed_models().unwrap().is_empty(),
            "{error}"
        );
        assert!(
            self.store().local_models().unwrap().models.is_empty(),
            "{error}"
        );
        for folder in ["home/manifests", "bin"] {
            let names = fs::read_dir(self.path(folder)).into_iter().flatten();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            assert!(
                names.iter().all(|name| name == "templates"),
                "{names:?} after {error}"
            );
        }
        let is_about_content =
            checked.is_err() || error.contains("manifest of") || error.contains("here");
        assert!(is_about_content, "{error} and yet {checked:?}");
        error
    }
}

fn outcomes(installed: &Installed) -> Vec<(&str, Outcome)> {
    let models = installed.models.iter();
    models
        .map(|(model, outcome)| (model.name(), *outcome))
        .collect()
}

#[test]
fn a_model_of_the_catalogue_counts_as_fetched_from_its_source() {
    let (from, to) = (House::with_tiny(), House::new());
    let bundle = from.pack(&["t"], &[]).unwrap();
    let (manifest, id) = verify(&bundle, &mut |_, _| {}).unwrap();
    assert_eq!(
        manifest.models[0].license.as_ref().unwrap().name,
        "Terms of A"
    );
    assert!(to.catalog().find("tiny").is_err());
    let installed = to.install(&bundle).unwrap();
    assert_eq!(
        (outcomes(&installed), installed.sha256),
        (vec![("tiny", Outcome::New)], id)
    );
    let catalog = to.catalog();
    let tiny = catalog.find("t").unwrap();
    assert_eq!(
        fs::read(to.store().installed(tiny).unwrap()).unwrap(),
        WEIGHTS
    );
    assert_eq!(tiny.chat_template.as_deref(), Some(TEMPLATE));
    assert_eq!((tiny.sources.len(), &*tiny.stop_tokens[0]), (1, "<end>"));
    assert_eq!(
        catalog.find("llama3").unwrap().id,
        "llama-3-8b-instruct",
        "whose name it is here"
    );
    to.store().verify("tiny").unwrap();
    assert_eq!(
        outcomes(&to.install(&bundle).unwrap()),
        [("tiny", Outcome::WasHere)]
    );
    // It goes on from there as it came.
    let further = to.pack(&["tiny"], &[]).unwrap();
    assert_eq!(
        further.metadata().unwrap().len(),
        bundle.metadata().unwrap().len()
    );
    to.store().remove("tiny").unwrap();
    assert!(to.catalog().find("tiny").is_err());
}

#[test]
fn what_an_address_hides_stays_at_home() {
    let (from, to) = (House::new(), House::new());
    let (sha256, url) = (
        sha256(WEIGHTS),
        "https://me:canary1@x.example/q/c.gguf?sign=canary2",
    );
    let manifest = format!(
        "id = \"tiny\" # canary3\n[[sources]]\nurl.url = \"{url}\"\nurl.sha256 = \"{sha256}\"\n\
         [[sources]]\nurl.files = [{{ url = \"{url}\", sha256 = \"{sha256}\", name = \"t.gguf\" }}]\n"
    );
    from.write("catalogue/tiny.toml", manifest.as_bytes());
    let catalog = from.catalog();
    let source = &catalog.find("tiny").unwrap().sources[0];
    let receipt = format!(
        "source = \"{source}\"\n[[file]]\nname = \"tiny.gguf\"\nsha256 = \"{sha256}\"\n\
         size_bytes = {}\n",
        WEIGHTS.len()
    );
    from.write("home/models/tiny/receipt.toml", receipt.as_bytes());
    from.write("home/models/tiny/tiny.gguf", WEIGHTS);
    let bundle = from.pack(&["tiny"], &[]).unwrap();
    let text = fs::read(&bundle).unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.contains("https://x.example/q/c.gguf") && !text.contains("canary"),
        "{text}"
    );
    to.install(&bundle).unwrap();
    let catalog = to.catalog();
    assert!(
        to.store()
            .installed(catalog.find("tiny").unwrap())
            .is_some()
    );
}

#[test]
fn the_same_content_is_the_same_archive() {
    let (one, other) = (House::with_tiny(), House::with_tiny());
    let pack = |house: &House, models: &[&str]| {
        house.write("bin/ingle", b"a program");
        house.write("home/gguf/dropped.gguf", b"GGUF dropped");
        fs::read(house.pack(models, &[house.path("bin/ingle")]).unwrap()).unwrap()
    };
    let bytes = pack(&one, &["tiny", "dropped"]);
    assert!(
        bytes == pack(&other, &["dropped", "t", "tiny"]),
        "order and repetition do not matter"
    );
    assert!(!String::from_utf8_lossy(&bytes).contains(one.folder.path().to_str().unwrap()));
    let again = one.pack(&["tiny"], &[]).unwrap_err().to_string();
    assert!(again.contains("out.tar exists"), "{again}");
}

#[test]
fn files_from_folders_and_imports_arrive_in_the_folder() {
    let (from, to) = (House::new(), House::new());
    from.write("home/gguf/x/m-00001-of-00002.gguf", b"GGUF 1");
    from.write("home/gguf/x/m-00002-of-00002.gguf", b"GGUF 2");
    from.write("blobs/sha256-1", b"GGUF 3");
    let import = Import {
        name: "hf.co/a/b:Q4 x".to_owned(),
        files: vec![from.path("blobs/sha256-1")],
        size_bytes: 6,
        sha256: None,
        from: "Ollama's store /x".to_owned(),
        template_of: None,
        license: Some("MIT".to_owned()),
    };
    from.store().record_import(&import).unwrap();
    let bundle = from.pack(&["hf.co/a/b:Q4 x", "M"], &[]).unwrap();
    let installed = to.install(&bundle).unwrap();
    assert_eq!(
        outcomes(&installed),
        [("b:Q4-x", Outcome::New), ("m", Outcome::New)]
    );
    let models = to.store().local_models().unwrap().models;
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["b:Q4-x", "m"]);
    assert!(
        models.iter().all(|model| model.facts().is_ok()),
        "they are offered at once"
    );
    assert_eq!(
        fs::read(to.path("home/gguf/b:Q4-x.gguf")).unwrap(),
        b"GGUF 3"
    );
    assert_eq!(to.install(&bundle).unwrap().models[1].1, Outcome::WasHere);
    to.write("home/gguf/m-00002-of-00002.gguf", b"GGUF !");
    let in_the_way = to.install(&bundle).unwrap_err().to_string();
    assert!(in_the_way.contains("move it away"), "{in_the_way}");
    assert_eq!(
        fs::read(to.path("home/gguf/m-00002-of-00002.gguf")).unwrap(),
        b"GGUF !"
    );
}

#[cfg(unix)]
#[test]
fn programs_are_installed_where_they_are_wanted() {
    use std::os::unix::fs::PermissionsExt;

    let (from, to) = (House::with_tiny(), House::new());
    from.write("bin/ingle", b"a program");
    let bundle = from.pack(&["tiny"], &[from.path("bin/ingle")]).unwrap();
    to.write("bin/ingle", b"an older program, and longer");
    to.install(&bundle).unwrap();
    let program = to.path("bin/ingle");
    assert_eq!(fs::read(&program).unwrap(), b"a program");
    assert_eq!(
        program.metadata().unwrap().permissions().mode() & 0o777,
        0o755
    );
    let other = from.pack(&[], &[from.path("catalogue/tiny.toml")]);
    assert!(other.is_err());
}

#[test]
fn what_an_ended_process_left_does_not_matter() {
    let (from, to) = (House::with_tiny(), House::new());
    from.write("out.tar.part", &[7; 10_000]);
    let bundle = from.pack(&["tiny"], &[]).unwrap();
    assert!(!from.path("out.tar.part").exists());
    let part = format!("home/partial/tiny/{}.part", sha256(WEIGHTS));
    to.write(&part, &[7; 10_000]);
    to.write("home/partial/tiny/ready/tiny.gguf", WEIGHTS);
    to.write("home/partial/.files/x", WEIGHTS);
    // Its manifest was written, and the model was not there yet.
    to.write(
        "home/manifests/tiny.toml",
        &fs::read(from.path("catalogue/tiny.toml")).unwrap(),
    );
    to.write("home/manifests/templates/mine.jinja", b"");
    to.install(&bundle).unwrap();
    to.store().verify("tiny").unwrap();
    assert!(!to.path("home/partial/tiny").exists());
}

#[test]
fn what_is_not_here_or_has_changed_is_not_packed() {
    let house = House::with_tiny();
    let said = |models: &[&str]| {
        let error = house.pack(models, &[]).unwrap_err().to_string();
        assert!(!house.path("out.tar").exists() && !house.path("out.tar.part").exists());
        error
    };
    assert!(said(&["smollm2"]).contains("ingle pull smollm2-135m-instruct"));
    assert!(said(&["tyny"]).contains("did you mean tiny"));
    let mut changed = WEIGHTS.to_vec();
    changed[7] ^= 1;
    house.write("home/models/tiny/tiny.gguf", &changed);
    assert!(said(&["tiny"]).contains("is not what it was"));
}

mod hostile;
