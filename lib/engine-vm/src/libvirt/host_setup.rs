//! What libvirt's files on a host must say so that sanlock protects its VMs: each setting with its reason, and how to put
//! it into a file without touching anything else in it.
//!
//! The form is libvirt's: `name = value` lines, `#` comments, the first one of a name counts. Source: the comments in
//! `qemu.conf` and `qemu-sanlock.conf` as libvirt ships them, and <https://libvirt.org/kbase/locking-sanlock.html>.

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// Its value as it stands in the file, quoted if it is a text.
    pub value: String,
    /// Why, for the operator.
    pub reason: &'static str,
}

impl Setting {
    fn new(key: &'static str, value: impl Into<String>, reason: &'static str) -> Self {
        Self { key, value: value.into(), reason }
    }
}

/// The driver's own file.
pub const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";
/// The lock manager's file.
pub const QEMU_SANLOCK_CONF: &str = "/etc/libvirt/qemu-sanlock.conf";

/// What [`QEMU_CONF`] must say.
pub fn qemu_conf() -> Vec<Setting> {
    vec![Setting::new(
        "lock_manager",
        "\"sanlock\"",
        "libvirt takes the engine VM's lease from sanlock for QEMU; without it the VM could run on two hosts at once",
    )]
}

/// What [`QEMU_SANLOCK_CONF`] must say on the host with this id.
pub fn qemu_sanlock_conf(host_id: u64) -> Vec<Setting> {
    vec![
        Setting::new(
            "auto_disk_leases",
            "0",
            "the engine VM names its own lease in the storage domain; libvirt is not to make others for each disk, which would \
             need a lockspace that only libvirt knows",
        ),
        Setting::new(
            "require_lease_for_disks",
            "0",
            "other VMs of this libvirt, which have no <lease>, stay startable; that the engine VM has one is checked by these \
             services",
        ),
        Setting::new(
            "host_id",
            host_id.to_string(),
            "sanlock knows this host by this id in every lockspace; libvirt refuses to start without one that differs from \
             the other hosts'",
        ),
        Setting::new(
            "disk_lease_dir",
            "\"/var/lib/libvirt/sanlock\"",
            "only for automatic leases, which are off; libvirt wants the name all the same",
        ),
    ]
}

/// One line as libvirt reads it.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let value = value.trim();
    // A comment may follow the value; a text may hold the sign.
    let end = match value.strip_prefix(['"', '\'']) {
        Some(rest) => rest.find(['"', '\'']).map_or(value.len(), |at| at + 2),
        None => value.find('#').unwrap_or(value.len()),
    };
    Some((key.trim(), value[..end].trim_end()))
}

/// The value that counts.
fn value_of<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().filter_map(assignment).find(|(found, _)| *found == key).map(|(_, value)| value)
}

/// The text with these settings, and those that were changed. Everything else stays as it is: a setting that is there is
/// changed on its line, one that is not gets a line at the end with its reason above.
pub fn apply<'s>(text: &str, settings: &'s [Setting]) -> (String, Vec<&'s Setting>) {
    let changed: Vec<&Setting> = settings
        .iter()
        .filter(|setting| value_of(text, setting.key) != Some(setting.value.as_str()))
        .collect();
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    for setting in &changed {
        let line = format!("{} = {}", setting.key, setting.value);
        let is_its = |line: &String| assignment(line).is_some_and(|(key, _)| key == setting.key);
        match lines.iter().position(is_its) {
            Some(at) => lines[at] = line,
            None => lines.extend([format!("# {}.", setting.reason), line]),
        }
    }
    let mut new = lines.join("\n");
    if !new.is_empty() {
        new.push('\n');
    }
    if changed.is_empty() { (text.to_owned(), changed) } else { (new, changed) }
}

/// Who keeps a libvirt daemon's VMs apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockManager {
    /// Nobody: libvirt's own default.
    None,
    /// sanlock.
    Sanlock,
    /// Another one, by its name.
    Other(String),
}

impl LockManager {
    /// What this `qemu.conf` says.
    pub fn of(text: &str) -> Self {
        match value_of(text, "lock_manager").map(|value| value.trim_matches(['"', '\''])) {
            None | Some("" | "nop") => Self::None,
            Some("sanlock") => Self::Sanlock,
            Some(other) => Self::Other(other.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_put_in_once_and_nothing_else_is_touched() {
        let before = "# comment\n#lock_manager = \"lockd\"\nuser = \"root\"  # who\n\n";
        let settings = qemu_conf();
        let (after, changed) = apply(before, &settings);
        assert_eq!(changed.len(), 1);
        assert!(after.starts_with(before), "{after}");
        assert!(after.ends_with("\nlock_manager = \"sanlock\"\n"), "{after}");
        assert!(after.contains("# libvirt takes the engine VM's lease from sanlock"), "{after}");
        assert_eq!(LockManager::of(&after), LockManager::Sanlock);
        let (again, changed) = apply(&after, &settings);
        assert_eq!((again, changed.len()), (after, 0));
    }

    #[test]
    fn a_wrong_value_is_changed_where_it_stands() {
        let before = "a = 1\n host_id = 7 # mine\nauto_disk_leases=1\nb = \"x # y\"\n";
        let settings = qemu_sanlock_conf(2);
        let (after, changed) = apply(before, &settings);
        assert_eq!(changed.len(), 4);
        assert!(after.starts_with("a = 1\nhost_id = 2\nauto_disk_leases = 0\nb = \"x # y\"\n"), "{after}");
        assert!(settings.iter().all(|setting| value_of(&after, setting.key) == Some(setting.value.as_str())));
        let (new, changed) = apply("", &settings);
        assert_eq!((changed.len(), value_of(&new, "host_id")), (4, Some("2")));
    }

    #[test]
    fn the_first_line_counts_and_comments_do_not() {
        let two = "lock_manager = 'lockd' # x\nlock_manager = \"sanlock\"\n";
        assert_eq!(LockManager::of(two), LockManager::Other("lockd".to_owned()));
        assert_eq!(LockManager::of(&apply(two, &qemu_conf()).0), LockManager::Sanlock);
        assert_eq!(LockManager::of("# lock_manager = \"sanlock\"\n"), LockManager::None);
        assert_eq!(LockManager::of("lock_manager=\"nop\""), LockManager::None);
    }
}
