//! `qemu-img`, which reads qcow2. The format is named in every call.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::refused;
use crate::deploy::{Call, DeployError, ToolError, Tools};

const PROGRAM: &str = "qemu-img";

/// A look at an image, and a check of its tables.
const LOOK: Duration = Duration::from_mins(10);
/// A copy: 100 GB at 10 MB/s.
const COPY: Duration = Duration::from_hours(3);

/// What `qemu-img info --output=json` says, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    virtual_size: u64,
    backing_filename: Option<String>,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    format_specific: Specific,
}

#[derive(Debug, Default, Deserialize)]
struct Specific {
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Data {
    data_file: Option<String>,
    #[serde(default)]
    corrupt: bool,
}

/// What `qemu-img check` exits with when only space was leaked, which harms nobody.
const LEAKS: i32 = 3;

fn missing_advice(error: ToolError) -> DeployError {
    match error {
        ToolError::Missing { .. } => DeployError::Refused(format!(
            "{error}: it is needed to read qcow2 images; install it (package qemu-img, on Debian qemu-utils)"
        )),
        other => other.into(),
    }
}

/// Refuses an image that is damaged, cut, encrypted, or made of more than itself. Gives the bytes of its disk. `path` is
/// its name in error texts.
pub(in crate::deploy::vm) fn check(
    source: Source<'_>,
    path: &Path,
    tools: &dyn Tools,
) -> Result<u64, DeployError> {
    let call = |verb: &str| source.name(Call::new(PROGRAM).args([verb, "--output=json"])).within(LOOK);
    let said = tools.run(&call("info")).map_err(missing_advice)?;
    let info: Info = serde_json::from_str(&said.out)
        .map_err(|error| refused(path, &format!("what qemu-img says of it cannot be understood: {error}")))?;
    if let Some(backing) = info.backing_filename {
        return Err(refused(
            path,
            &format!(
                "it is only the difference to another image, {backing:?}; join them with: qemu-img convert -f qcow2 -O \
                 qcow2 IMAGE NEW.qcow2"
            ),
        ));
    }
    if let Some(data) = info.format_specific.data.data_file {
        return Err(refused(
            path,
            &format!(
                "its data is in another file, {data:?}; join them with: qemu-img convert -f qcow2 -O qcow2 IMAGE NEW.qcow2"
            ),
        ));
    }
    if info.encrypted {
        return Err(refused(path, "it is encrypted; decrypt it first"));
    }
    if info.format_specific.data.corrupt {
        return Err(refused(path, "it is marked as corrupt; copy it here again"));
    }
    // A qcow2 that was cut opens well, and what is missing reads as zeros.
    let said = tools.ask(&call("check")).map_err(missing_advice)?;
    if said.code != 0 && said.code != LEAKS {
        let first = said.err.lines().next().unwrap_or("no reason given").trim();
        return Err(refused(
            path,
            &format!("qemu-img check finds it damaged or cut ({first}); copy it here again"),
        ));
    }
    Ok(info.virtual_size)
}

/// QEMU's name for a qcow2 that lies in a tar archive at `offset`, `bytes` long.
pub(in crate::deploy::vm) fn spec_in_archive(archive: &Path, offset: u64, bytes: u64) -> String {
    let file = json!({"driver": "file", "filename": archive.to_string_lossy()});
    let place = json!({"driver": "raw", "offset": offset, "size": bytes, "file": file});
    format!("json:{}", json!({"driver": "qcow2", "file": place}))
}

/// Where the qcow2 of a conversion is.
#[derive(Debug, Clone, Copy)]
pub(in crate::deploy::vm) enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// What [`spec_in_archive`] gives, which names the format itself.
    Spec(&'a str),
}

impl Source<'_> {
    fn name(self, call: Call) -> Call {
        match self {
            Self::File(path) => call.args(["-f", "qcow2"]).arg(path),
            Self::Spec(spec) => call.arg(spec),
        }
    }
}

/// Copies a qcow2 to a wiped volume: what is zero is left out. `progress` is told hundredths of a percent.
///
/// # Errors
/// What `qemu-img` says.
pub(in crate::deploy::vm) fn convert(
    source: Source<'_>,
    target: &Path,
    tools: &dyn Tools,
    progress: &mut dyn FnMut(u64),
) -> Result<(), DeployError> {
    // The volume is there and zero (-n, --target-is-zero); the page cache of this host is of no use to it (-t none).
    let call = Call::new(PROGRAM)
        .args(["convert", "-p", "-n", "--target-is-zero", "-t", "none", "-O", "raw"])
        .within(COPY);
    let call = source.name(call);
    let mut heard = |text: &str| {
        if let Some(share) = text.rsplit(['(', '\r']).find_map(share_of) {
            progress(share);
        }
    };
    tools.follow(&call.arg(target), &mut heard).map(drop).map_err(missing_advice)
}

/// `66.67/100%)` in hundredths of a percent.
fn share_of(text: &str) -> Option<u64> {
    let (percent, rest) = text.trim().split_once('/')?;
    let (whole, part) = percent.split_once('.')?;
    if !rest.starts_with("100%") || part.len() != 2 {
        return None;
    }
    Some(whole.parse::<u64>().ok()? * 100 + part.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_qemu_img_writes_it() {
        assert_eq!(share_of("66.67/100%)"), Some(6667));
        assert_eq!(share_of("100.00/100%)"), Some(10000));
        for other in ["", "1/2", "66.67/90%)", "a.bc/100%"] {
            assert_eq!(share_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_the_description() {
        let spec = spec_in_archive(Path::new("/a\",\"driver\":\"x"), 512, 1024);
        let value: serde_json::Value = serde_json::from_str(spec.strip_prefix("json:").unwrap()).unwrap();
        assert_eq!(value["file"]["file"]["filename"], "/a\",\"driver\":\"x");
        assert_eq!(
            (value["file"]["offset"].as_u64(), value["file"]["size"].as_u64()),
            (Some(512), Some(1024))
        );
    }
}
