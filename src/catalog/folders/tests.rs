use super::*;

struct Ground {
    folder: tempfile::TempDir,
    folders: Folders,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        let folders = Folders::new(own, vec![folder.path().join("more")]);
        fs::create_dir(folder.path().join("more")).unwrap();
        Self { folder, folders }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "GGUF").unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.folders.scan().models.keys().cloned().collect()
    }

    /// Why a file is not offered.
    fn reason(&self, name: &str) -> String {
        let scan = self.folders.scan();
        let skipped = scan
            .skipped
            .iter()
            .find(|skipped| skipped.path.ends_with(name));
        skipped
            .unwrap_or_else(|| panic!("{name} is not in {scan:?}"))
            .reason
            .clone()
    }
}

#[test]
fn files_are_models_as_soon_as_they_are_there() {
    let ground = Ground::new();
    assert!(ground.names().is_empty());
    for (n, name) in ["own/a.gguf", "more/b.GGUF", "own/x/y/z/w/c.gguf"]
        .iter()
        .enumerate()
    {
        ground.put(name);
        assert_eq!(ground.names().len(), n + 1, "{name}");
    }
    assert_eq!(ground.names(), ["a", "b", "c"]);
    fs::remove_file(ground.path("own/x/y/z/w/c.gguf")).unwrap();
    fs::rename(ground.path("own/a.gguf"), ground.path("own/d.gguf")).unwrap();
    assert_eq!(ground.names(), ["b", "d"]);
    let scan = ground.folders.scan();
    assert_eq!(scan.find("D").unwrap().path, ground.path("own/d.gguf"));
    assert_eq!(scan.find("d.gguf"), None);
}

#[test]
fn a_folder_that_did_not_change_is_not_read_again() {
    let ground = Ground::new();
    ground.put("own/a.gguf");
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    for folder in ["own", "more"] {
        let folder = fs::File::open(ground.path(folder)).unwrap();
        folder.set_modified(long_ago).unwrap();
    }
    let first = ground.folders.scan();
    assert!(Arc::ptr_eq(&first, &ground.folders.scan()));
    ground.put("more/b.gguf");
    let second = ground.folders.scan();
    assert_eq!(second.models.len(), 2);
    assert!(
        !Arc::ptr_eq(&second, &ground.folders.scan()),
        "it changed just now"
    );
}

#[test]
fn shards_are_one_model_once_all_are_there() {
    let ground = Ground::new();
    ground.put("own/m-00001-of-00003.gguf");
    ground.put("own/m-00003-of-00003.gguf");
    assert!(ground.names().is_empty());
    assert!(
        ground
            .reason("m-00001-of-00003.gguf")
            .contains("number 2 is not here")
    );
    ground.put("own/m-00002-of-00003.gguf");
    assert_eq!(ground.names(), ["m"]);
    assert_eq!(ground.folders.scan().find("m").unwrap().files.len(), 3);
}

#[test]
fn one_name_never_stands_for_either_of_two_files() {
    let ground = Ground::new();
    for name in ["own/a.gguf", "own/x/a.gguf", "more/a.gguf", "own/b.gguf"] {
        ground.put(name);
    }
    assert_eq!(ground.names(), ["b", "more/a", "own/a", "own/x/a"]);
    let scan = ground.folders.scan();
    assert_eq!(scan.ambiguous["a"], ["more/a", "own/a", "own/x/a"]);
    assert_eq!(scan.find("a"), None);
}

#[test]
fn a_folder_named_twice_gives_its_models_once() {
    let ground = Ground::new();
    ground.put("own/x/a.gguf");
    let own = ground.path("own");
    let folders = Folders::new(own.clone(), vec![own.join("x"), own.join("../own")]);
    assert_eq!(folders.scan().models.len(), 1);
    let absent = Folders::new(ground.path("absent"), vec![ground.path("gone")]);
    let scan = absent.scan();
    assert_eq!(
        scan.skipped.len(),
        1,
        "only the one that was named is missed: {scan:?}"
    );
    fs::create_dir(ground.path("gone")).unwrap();
    ground.put("absent/n.gguf");
    ground.put("gone/m.gguf");
    assert_eq!(absent.scan().models.len(), 2);
}

#[test]
fn what_is_no_model_is_passed_over_or_said() {
    let ground = Ground::new();
    for name in [
        "own/.a.gguf",
        "own/a.gguf.part",
        "own/notes.txt",
        "own/.git/b.gguf",
    ] {
        ground.put(name);
    }
    let scan = ground.folders.scan();
    assert_eq!((scan.models.len(), &*scan.skipped), (0, &[][..]));
    fs::create_dir(ground.path("own/c.gguf")).unwrap();
    ground.put("own/1/2/3/4/5/deep.gguf");
    ground.put("own/d\n.gguf");
    assert!(ground.reason("5").contains("--model-folder"));
    assert!(ground.reason("d\n.gguf").contains("control"));
    assert!(ground.names().is_empty());
}

#[cfg(unix)]
#[test]
fn links_lead_nowhere_outside() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    let ground = Ground::new();
    ground.put("secret/x.gguf");
    ground.put("own/blobs/1");
    let link = |target: &Path, name: &str| symlink(target, ground.path(name)).unwrap();
    link(&ground.path("secret/x.gguf"), "own/out.gguf");
    link(Path::new("../secret/x.gguf"), "own/relative.gguf");
    link(&ground.path("secret"), "own/folder");
    link(&ground.path("own/out.gguf"), "own/twice.gguf");
    link(Path::new("loop.gguf"), "own/loop.gguf");
    link(Path::new("/dev/zero"), "own/zero.gguf");
    link(Path::new("blobs/1"), "own/inside.gguf");
    link(&ground.path("own"), "own/blobs/up");
    for name in ["out.gguf", "relative.gguf", "twice.gguf", "zero.gguf"] {
        assert!(
            ground.reason(name).contains("leads out of the folder"),
            "{name}"
        );
    }
    assert!(ground.reason("loop.gguf").contains("leads nowhere"));
    for name in ["folder", "up"] {
        assert!(ground.reason(name).contains("a link to a folder"), "{name}");
    }
    let odd = ground
        .path("own")
        .join(std::ffi::OsStr::from_bytes(b"\xff.gguf"));
    fs::write(&odd, "GGUF").unwrap();
    let scan = ground.folders.scan();
    let skipped = scan
        .skipped
        .iter()
        .find(|skipped| skipped.path == odd)
        .unwrap();
    assert!(skipped.reason.contains("not valid UTF-8"));
    assert_eq!(ground.names(), ["inside"], "as the hub's own cache has it");
}
