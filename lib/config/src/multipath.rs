//! Whether multipath gives up in time: this host's multipath.conf, as far as the leases depend on it.
//!
//! When all paths to a device are lost, multipath keeps requests back: for `no_path_retry` times `polling_interval`
//! seconds, or for ever with `queue`. Requests that are kept back for longer than 8N could reach storage after this host
//! has lost its leases, and until then nobody here is told that storage failed.
//!
//! `multipaths` comes before `overrides`, and that before `devices` and `defaults`. What is not set at all is the built-in
//! table's, which is not known here.

use std::path::{Path, PathBuf};

use crate::ha_toml::LeaseTable;
use crate::paths::Paths;

/// multipathd's own default, in seconds.
const POLLING: u32 = 5;

/// One `no_path_retry`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Retry {
    file: PathBuf,
    section: String,
    value: String,
}

#[derive(Debug, Default)]
struct Reader {
    retries: Vec<Retry>,
    polling: Option<u32>,
}

/// What keeps requests back for longer than the leases last, each with the value to set. Empty without multipath.conf, and
/// when all is well.
pub fn warnings(paths: &Paths, lease: &LeaseTable) -> Vec<String> {
    let file = paths.multipath_conf();
    let mut reader = Reader::default();
    let mut files = vec![file.clone()];
    // Fragments are read after the file itself, in the order of their names.
    if let Ok(found) = std::fs::read_dir(file.with_file_name("multipath").join("conf.d")) {
        let is_conf = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "conf");
        let mut fragments: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).filter(is_conf).collect();
        fragments.sort();
        files.extend(fragments);
    }
    for file in files {
        // Nobody's business here when it is not there or cannot be read: multipathd says so itself.
        if let Ok(text) = std::fs::read_to_string(&file) {
            reader.take(&file, &text);
        }
    }
    reader.judge(lease)
}

impl Reader {
    fn take(&mut self, file: &Path, text: &str) {
        let text: String = text.lines().map(|line| line.split(['#', '!']).next().unwrap_or_default()).fold(
            String::new(),
            |mut all, line| {
                all.push_str(&line.replace('{', " { ").replace('}', " } "));
                all.push('\n');
                all
            },
        );
        let mut words = text.split_whitespace().map(|word| word.trim_matches('"')).peekable();
        let mut sections = Vec::new();
        while let Some(word) = words.next() {
            match (word, words.peek()) {
                ("}", _) => drop(sections.pop()),
                (_, Some(&"{")) => {
                    words.next();
                    sections.push(word);
                }
                ("no_path_retry", Some(value)) => self.retries.push(Retry {
                    file: file.to_owned(),
                    section: sections.join("/"),
                    value: (*value).to_owned(),
                }),
                ("polling_interval", Some(value)) => self.polling = value.parse().ok().or(self.polling),
                _ => {}
            }
        }
    }

    fn judge(&self, lease: &LeaseTable) -> Vec<String> {
        let is_overridden = self.retries.iter().any(|retry| retry.section == "overrides");
        let counts = |retry: &&Retry| {
            !is_overridden || matches!(retry.section.as_str(), "overrides" | "multipaths/multipath")
        };
        self.retries.iter().filter(counts).filter_map(|retry| self.warning(retry, lease)).collect()
    }

    fn warning(&self, retry: &Retry, lease: &LeaseTable) -> Option<String> {
        let polling = self.polling.filter(|polling| *polling > 0).unwrap_or(POLLING);
        let (most, lost) = (lease.most_path_retries(polling), lease.lost_after().as_secs());
        let kept = match retry.value.as_str() {
            "fail" | "0" => return None,
            "queue" => "for ever".to_owned(),
            value => match value.parse::<u32>() {
                Ok(times) if times <= most => return None,
                Ok(times) => format!("for {} s", u64::from(times) * u64::from(polling)),
                // multipathd refuses it itself.
                Err(_) => return None,
            },
        };
        let profile = lease.profile().map_or(String::new(), |profile| format!(" (profile {profile})"));
        Some(format!(
            "{}: no_path_retry {} in {} keeps requests back {kept} when all paths are lost, and this host's leases are lost \
             after 8 × lease.io_timeout = {lost} s{profile}: set no_path_retry {most} or less, with polling_interval \
             {polling}",
            retry.file.display(),
            retry.value,
            retry.section
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha_toml::RecoveryProfile;

    fn judge(text: &str, profile: RecoveryProfile) -> Vec<String> {
        let mut reader = Reader::default();
        reader.take(Path::new("/etc/multipath.conf"), text);
        reader.judge(&profile.table())
    }

    #[test]
    fn the_value_that_fits_depends_on_the_profile() {
        for (profile, most) in
            [(RecoveryProfile::Standard, 16), (RecoveryProfile::Fast, 8), (RecoveryProfile::Aggressive, 3)]
        {
            let text =
                |times: u32| format!("defaults {{\n  polling_interval 5 # s\n  no_path_retry {times}\n}}\n");
            assert_eq!(judge(&text(most), profile), Vec::<String>::new());
            let warned = judge(&text(most + 1), profile);
            let end = format!("set no_path_retry {most} or less, with polling_interval 5");
            assert!(warned.len() == 1 && warned[0].ends_with(&end), "{warned:?}");
            assert!(warned[0].contains(&format!("(profile {profile})")), "{warned:?}");
        }
        let slow = "defaults{polling_interval 20\nno_path_retry 5}";
        assert!(judge(slow, RecoveryProfile::Standard)[0].contains("set no_path_retry 4 or less"));
    }

    #[test]
    fn what_comes_first_counts() {
        let queue = "devices {\n device {\n  vendor \"X Y\"\n  no_path_retry queue\n }\n}\n";
        let warned = judge(queue, RecoveryProfile::Standard);
        assert!(
            warned[0].contains("no_path_retry queue in devices/device keeps requests back for ever"),
            "{warned:?}"
        );
        let fail = "overrides { no_path_retry fail }\n";
        assert_eq!(judge(&format!("{queue}{fail}"), RecoveryProfile::Aggressive), Vec::<String>::new());
        let own = "multipaths { multipath { wwid 1\n no_path_retry \"20\" } }\n";
        assert_eq!(judge(&format!("{queue}{fail}{own}"), RecoveryProfile::Standard).len(), 1);
        assert_eq!(
            judge("# no_path_retry queue\ndefaults {", RecoveryProfile::Standard),
            Vec::<String>::new()
        );
    }

    #[test]
    fn fragments_are_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        assert_eq!(warnings(&paths, &LeaseTable::default()), Vec::<String>::new());
        let fragments = dir.path().join("etc/multipath/conf.d");
        std::fs::create_dir_all(&fragments).unwrap();
        std::fs::write(dir.path().join("etc/multipath.conf"), "defaults { polling_interval 10 }").unwrap();
        std::fs::write(fragments.join("a.conf"), "defaults { no_path_retry 9 }").unwrap();
        std::fs::write(fragments.join("b.txt"), "defaults { no_path_retry queue }").unwrap();
        let warned = warnings(&paths, &LeaseTable::default());
        assert!(warned.len() == 1 && warned[0].contains("a.conf: no_path_retry 9 in defaults"), "{warned:?}");
    }
}
