//! The files in which open-iscsi keeps its settings: lines of `name = value` between `# BEGIN RECORD` and `# END RECORD`.
//! They are root's alone, and hold the passwords.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ha_config::atomic::{self, Mode};
use ha_config::{Paths, Secret};

use super::{Chap, Portal};
use crate::deploy::DeployError;

/// Where distributions have them.
const PLACES: [&str; 2] = ["/etc/iscsi", "/var/lib/iscsi"];

/// The record of a portal.
pub(super) fn find(paths: &Paths, portal: &Portal) -> Option<PathBuf> {
    let Portal { host, port, tpgt, target } = portal;
    places(paths).iter().find_map(|place| {
        let node = place.join("nodes").join(target);
        // A file in old releases, a directory with one for each interface in others.
        let of_group = node.join(format!("{host},{port},{tpgt}"));
        let places = [of_group.join("default"), of_group, node.join(format!("{host},{port}"))];
        places.into_iter().find(|file| file.is_file())
    })
}

/// Where the records may be on this host.
pub(super) fn places(paths: &Paths) -> [PathBuf; 2] {
    PLACES.map(|place| paths.resolve(place))
}

/// The lines of a discovery's record that have it log in with a password.
pub(super) fn discovery(chap: &Chap<'_>) -> Result<Secret, DeployError> {
    let (user, password) = (chap.user, reveal(chap.password)?);
    let key = "discovery.sendtargets.auth";
    Ok(Secret::new(format!(
        "{key}.authmethod = CHAP\n{key}.username = {user}\n{key}.password = {password}\n"
    )))
}

/// Has the host log in at boot, and with a password where there is one.
pub(super) fn set_node(paths: &Paths, portal: &Portal, chap: Option<&Chap<'_>>) -> Result<(), DeployError> {
    let file = find(paths, portal).ok_or_else(|| missing(&portal.to_string()))?;
    let mut values = vec![("node.startup", "automatic"), ("node.conn[0].startup", "automatic")];
    let password = chap.map(|chap| reveal(chap.password)).transpose()?;
    if let (Some(chap), Some(password)) = (chap, &password) {
        values.extend([
            ("node.session.auth.authmethod", "CHAP"),
            ("node.session.auth.username", chap.user),
            ("node.session.auth.password", password),
        ]);
    }
    change(&file, &values)
}

fn missing(of: &str) -> DeployError {
    DeployError::Refused(format!(
        "iscsiadm made no settings for {of} in {}: is this open-iscsi 2.0 or later?",
        PLACES.join(" or ")
    ))
}

fn reveal(secret: &Secret) -> Result<&str, DeployError> {
    let text = secret.reveal();
    if text.is_empty() || text.contains(['\n', '\r', '\0']) || text.trim() != text || text.len() > 255 {
        return Err(DeployError::Refused(
            "the iSCSI password must have 1 to 255 bytes in one line, without spaces at its ends".to_owned(),
        ));
    }
    Ok(text)
}

fn change(file: &Path, values: &[(&str, &str)]) -> Result<(), DeployError> {
    let text = std::fs::read_to_string(file).map_err(DeployError::io("read", file))?;
    // open-iscsi makes them so; the new file takes the mode of the old one.
    let only_root = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, only_root).map_err(DeployError::io("set the mode of", file))?;
    Ok(atomic::write(file, with(&text, values).as_bytes(), Mode::KeepOr644)?)
}

/// The record with these values.
fn with(text: &str, values: &[(&str, &str)]) -> String {
    let name = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    let is_set = |line: &str| name(line).is_some_and(|name| values.iter().any(|(key, _)| *key == name));
    let mut lines: Vec<String> = text.lines().filter(|line| !is_set(line)).map(ToOwned::to_owned).collect();
    let end = lines.iter().position(|line| line.starts_with("# END")).unwrap_or(lines.len());
    lines.splice(end..end, values.iter().map(|(key, value)| format!("{key} = {value}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What open-iscsi 2.1.8 wrote, shortened.
    const RECORD: &str = "# BEGIN RECORD 2.1.8\nnode.name = iqn.2026-01.com.example:t1\nnode.tpgt = 1\n\
                          node.startup = manual\nnode.leading_login = No\nnode.session.auth.authmethod = None\n\
                          node.session.auth.chap_algs = MD5\nnode.conn[0].startup = manual\n# END RECORD\n";

    fn scene(name: &str) -> (tempfile::TempDir, Paths, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let file = paths.resolve("/var/lib/iscsi").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, RECORD).unwrap();
        (root, paths, file)
    }

    #[test]
    fn the_password_is_in_roots_file_only_and_nothing_else_changes() {
        let portal = Portal { host: "fd00::1".into(), port: 3260, tpgt: 1, target: "iqn.t".into() };
        let (_root, paths, file) = scene("nodes/iqn.t/fd00::1,3260,1/default");
        let chap = Chap { user: "ed", password: &Secret::new("se same") };
        set_node(&paths, &portal, Some(&chap)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for line in [
            "node.startup = automatic",
            "node.conn[0].startup = automatic",
            "node.session.auth.authmethod = CHAP",
            "node.session.auth.username = ed",
            "node.session.auth.password = se same",
            "node.session.auth.chap_algs = MD5",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in {text}");
        }
        assert!(
            text.ends_with("# END RECORD\n") && !text.contains("None") && !text.contains("manual"),
            "{text}"
        );
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn older_forms_are_found_and_a_password_of_two_lines_is_refused() {
        let portal = Portal { host: "a".into(), port: 1, tpgt: 2, target: "iqn.t".into() };
        for name in ["nodes/iqn.t/a,1,2", "nodes/iqn.t/a,1"] {
            let (_root, paths, file) = scene(name);
            assert_eq!(find(&paths, &portal), Some(file));
        }
        let (_root, paths, _) = scene("send_targets/a,1/st_config");
        assert_eq!(find(&paths, &portal), None);
        let chap = Chap { user: "ed", password: &Secret::new("a\nb = c") };
        let error = discovery(&chap).unwrap_err().to_string();
        assert!(error.contains("in one line") && !error.contains("b = c"), "{error}");
    }
}
