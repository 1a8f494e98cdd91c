use super::*;

struct Place {
    _dir: tempfile::TempDir,
    domain: PathBuf,
    volume: PathBuf,
}

impl Place {
    /// A domain as VDSM leaves it on file storage: the image's directory, and a link to it where volumes are prepared.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = dir.path().join("mnt/a:_b/sd-1");
        fs::create_dir_all(domain.join("images/img")).unwrap();
        fs::write(domain.join("images/img/vol"), "data").unwrap();
        fs::write(domain.join("images/img/old"), "old").unwrap();
        let prepared = dir.path().join("run/vdsm/storage/sd-1");
        fs::create_dir_all(&prepared).unwrap();
        symlink(domain.join("images/img"), prepared.join("img")).unwrap();
        Self { _dir: dir, domain, volume: prepared.join("img/vol") }
    }

    fn link(&self) -> PathBuf {
        self.domain.join("ha_agent/hosted-engine.metadata")
    }

    fn put(&self, target: &Path) {
        fs::create_dir_all(self.domain.join("ha_agent")).unwrap();
        symlink(target, self.link()).unwrap();
    }

    fn ensure_with(&self, shared_target: Option<&Path>) -> Result<Made, LinkError> {
        let name = "hosted-engine.metadata";
        Link { domain: &self.domain, name, volume: &self.volume, shared_target, host: 2 }.ensure()
    }

    fn ensure(&self) -> Result<Made, LinkError> {
        self.ensure_with(None)
    }
}

#[test]
fn a_missing_link_is_made_once() {
    let place = Place::new();
    assert_eq!(place.ensure().unwrap(), Made::New);
    assert_eq!(fs::read_link(place.link()).unwrap(), place.volume);
    assert_eq!(place.ensure().unwrap(), Made::Kept);
    assert_eq!(fs::read_dir(place.domain.join("ha_agent")).unwrap().count(), 1, "nothing unfinished stays");
}

#[test]
fn a_shared_link_does_not_depend_on_this_host() {
    let place = Place::new();
    let shared = Path::new("../images/img/vol");
    assert_eq!(place.ensure_with(Some(shared)).unwrap(), Made::New);
    assert_eq!(fs::read_link(place.link()).unwrap(), shared);
    assert_eq!(place.ensure().unwrap(), Made::Kept, "whatever its words, it leads to the volume");
    fs::remove_file(place.link()).unwrap();
    place.ensure_with(Some(Path::new("../images/img/old"))).unwrap();
    assert_eq!(fs::read_link(place.link()).unwrap(), place.volume, "one that leads elsewhere is not used");
}

#[test]
fn links_of_the_domain_and_dangling_ones_are_replaced() {
    let place = Place::new();
    for target in [
        Path::new("/nowhere/at/all"),
        Path::new("hosted-engine.metadata"),
        Path::new("../images/img/old"),
        &place.domain.join("images/img/old"),
        &place.volume.with_file_name("old"),
    ] {
        place.put(target);
        assert_eq!(place.ensure().unwrap(), Made::Replaced, "{}", target.display());
        assert_eq!(fs::read(place.link()).unwrap(), b"data");
        fs::remove_file(place.link()).unwrap();
    }
}

#[test]
fn what_is_left_of_an_earlier_try_is_no_hindrance() {
    let place = Place::new();
    place.put(Path::new("/nowhere"));
    symlink("/x", place.domain.join("ha_agent/.hosted-engine.metadata.host-2")).unwrap();
    assert_eq!(place.ensure().unwrap(), Made::Replaced);
}

#[test]
fn files_directories_and_foreign_links_stay() {
    let place = Place::new();
    let outside = place.domain.parent().unwrap().join("precious");
    fs::write(&outside, "precious").unwrap();
    place.put(&outside);
    assert!(matches!(place.ensure(), Err(LinkError::Foreign { .. })));
    fs::remove_file(place.link()).unwrap();
    place.put(Path::new("../../precious"));
    assert!(matches!(place.ensure(), Err(LinkError::Foreign { .. })), "out of the domain again");
    fs::remove_file(place.link()).unwrap();
    fs::write(place.link(), "precious").unwrap();
    let error = place.ensure().unwrap_err();
    assert!(error.to_string().contains("hosted-engine.metadata is a file, not a link"), "{error}");
    assert_eq!(fs::read(place.link()).unwrap(), b"precious");
    fs::remove_file(place.link()).unwrap();
    fs::create_dir(place.link()).unwrap();
    assert!(matches!(place.ensure(), Err(LinkError::Occupied { what: "a directory", .. })));
}

#[test]
fn nothing_is_made_without_the_volume_or_the_domain() {
    let place = Place::new();
    let gone = Place { volume: place.volume.with_file_name("gone"), ..Place::new() };
    assert!(matches!(gone.ensure(), Err(LinkError::NoVolume { .. })));
    assert!(!gone.domain.join("ha_agent").exists());
    let elsewhere = Place { domain: place.domain.with_file_name("sd-2"), ..Place::new() };
    assert!(matches!(elsewhere.ensure(), Err(LinkError::NoDomain(_))));
}
