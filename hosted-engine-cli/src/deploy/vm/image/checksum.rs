//! Checksums that are kept beside an image, in the forms of `sha256sum` and its kin.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::refused;
use crate::deploy::DeployError;

/// Longest checksum file that is read; lists of a whole release have a few kB.
const LIST_LIMIT: u64 = 1 << 20;

/// Counts a checksum.
pub(super) enum Sum {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Sum {
    /// By the name that manifests and `sha256sum --tag` write: `SHA256`.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().replace('-', "").as_str() {
            "SHA1" => Some(Self::Sha1(Sha1::new())),
            "SHA256" => Some(Self::Sha256(Sha256::new())),
            "SHA512" => Some(Self::Sha512(Sha512::new())),
            _ => None,
        }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(sum) => sum.update(bytes),
            Self::Sha256(sum) => sum.update(bytes),
            Self::Sha512(sum) => sum.update(bytes),
        }
    }

    /// In lower-case hex digits.
    pub fn hex(self) -> String {
        let bytes = match self {
            Self::Sha1(sum) => sum.finalize().to_vec(),
            Self::Sha256(sum) => sum.finalize().to_vec(),
            Self::Sha512(sum) => sum.finalize().to_vec(),
        };
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

/// Checks an image against `IMAGE.sha256` or `IMAGE.sha512` when there is one. `progress` is told bytes done and all
/// bytes. Gives the checksum's file.
///
/// # Errors
/// The checksum is another one, or its file cannot be understood.
pub fn verify(image: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Option<PathBuf>, DeployError> {
    for (ending, name) in [(".sha256", "SHA256"), (".sha512", "SHA512")] {
        let mut path = image.as_os_str().to_owned();
        path.push(ending);
        let path = PathBuf::from(path);
        let list = match File::open(&path) {
            Ok(list) => list,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(DeployError::io("open the checksum", &path)(error)),
        };
        let mut text = String::new();
        list.take(LIST_LIMIT)
            .read_to_string(&mut text)
            .map_err(DeployError::io("read the checksum", &path))?;
        let digits = if name == "SHA256" { 64 } else { 128 };
        let base = image.file_name().unwrap_or_default().to_string_lossy();
        let wanted = find(&text, &base, digits).ok_or_else(|| {
            DeployError::Refused(format!(
                "{}: there is no {name} checksum of {base} in it; write it anew with {}sum, or remove it",
                path.display(),
                name.to_ascii_lowercase()
            ))
        })?;
        let mut sum = Sum::named(name).ok_or_else(|| refused(image, "its checksum is of no known kind"))?;
        let mut file = File::open(image).map_err(DeployError::io("open the disk image", image))?;
        let total = file.metadata().map_err(DeployError::io("look at the disk image", image))?.len();
        let mut chunk = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let got = file.read(&mut chunk).map_err(DeployError::io("read the disk image", image))?;
            if got == 0 {
                break;
            }
            sum.add(&chunk[..got]);
            done += got as u64;
            progress(done, total);
        }
        let found = sum.hex();
        if found != wanted {
            return Err(refused(
                image,
                &format!(
                    "its {name} checksum is {found}, and {} says {wanted}: it was damaged on its way, or is another one; \
                     copy it here again",
                    path.display()
                ),
            ));
        }
        return Ok(Some(path));
    }
    Ok(None)
}

/// The checksum of the file `name` in a list: `HEX`, `HEX  NAME`, `HEX *NAME` or `SHA256 (NAME) = HEX`.
fn find(text: &str, name: &str, digits: usize) -> Option<String> {
    let is_sum = |word: &str| word.len() == digits && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).find_map(|line| {
        let (sum, of) = match line.split_once(char::is_whitespace) {
            None => (line, None),
            Some((sum, rest)) if is_sum(sum) => (sum, Some(rest.trim_start().trim_start_matches('*'))),
            Some(_) => {
                let (head, sum) = line.rsplit_once('=')?;
                (sum.trim(), Some(head.split_once('(')?.1.trim_end().strip_suffix(')')?))
            }
        };
        let is_its = of.is_none_or(|of| base(of) == name);
        (is_sum(sum) && is_its).then(|| sum.to_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_form_of_list_is_read() {
        for list in [
            EMPTY.to_owned(),
            format!("{EMPTY}  disk.qcow2\n"),
            format!("# made today\n{EMPTY} *./a/disk.qcow2\n"),
            format!("{}  other\nSHA256 (disk.qcow2) = {}\n", "0".repeat(64), EMPTY.to_uppercase()),
        ] {
            assert_eq!(find(&list, "disk.qcow2", 64).as_deref(), Some(EMPTY), "{list}");
        }
        for list in ["", "abc", &format!("{EMPTY}  other"), &format!("MD5 (disk.qcow2) = {}", &EMPTY[..32])] {
            assert_eq!(find(list, "disk.qcow2", 64), None, "{list}");
        }
    }

    #[test]
    fn an_image_is_held_against_the_checksum_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        std::fs::write(&image, "abc").unwrap();
        assert_eq!(verify(&image, |_, _| ()).unwrap(), None);
        let list = folder.path().join("disk.sha256");
        let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        std::fs::write(&list, format!("{good}  disk\n")).unwrap();
        let mut told = Vec::new();
        assert_eq!(verify(&image, |done, total| told.push((done, total))).unwrap(), Some(list.clone()));
        assert_eq!(told, [(3, 3)]);
        std::fs::write(&image, "abd").unwrap();
        let error = verify(&image, |_, _| ()).unwrap_err().to_string();
        assert!(error.contains(good) && error.contains("disk.sha256 says"), "{error}");
        std::fs::write(&list, "nothing\n").unwrap();
        let error = verify(&image, |_, _| ()).unwrap_err().to_string();
        assert!(error.contains("no SHA256 checksum of disk"), "{error}");
    }
}
