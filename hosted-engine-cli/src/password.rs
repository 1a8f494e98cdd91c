//! `--add-console-password`: a password for the VM's graphical console that ends by itself.
//!
//! It comes from a file, the environment, standard input or a prompt without echo; never from the command line,
//! which every user of the machine can read.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engine_vm::{ConsoleKind, EngineVm, VmError};
use ha_config::Secret;

use crate::hidden_input;
use crate::terminal::{Exit, Terminal};

/// How long a console password lasts; the same as the existing command's.
pub const VALID: Duration = Duration::from_mins(2);

/// Environment variable that may hold the password.
pub const VARIABLE: &str = "OVIRT_HOSTED_ENGINE_CONSOLE_PASSWORD";

/// Bytes that a VNC server compares; further ones count for nothing.
const VNC_BYTES: usize = 8;

/// Reads the password: from `file` (`-` is standard input), else from `environment`, else from standard input,
/// with a prompt if that is a terminal.
pub fn read(file: Option<&Path>, environment: Option<String>) -> Result<Secret> {
    let text = match file {
        Some(path) if path == Path::new("-") => first_line(std::io::stdin().lock())?,
        Some(path) => {
            let file = std::fs::File::open(path)
                .with_context(|| format!("Cannot read the password from {}", path.display()))?;
            first_line(BufReader::new(file))?
        }
        None => match environment.filter(|text| !text.is_empty()) {
            Some(text) => text,
            None => from_input()?,
        },
    };
    if text.is_empty() {
        bail!("The console password is empty; a console without a password is refused");
    }
    Ok(Secret::new(text))
}

/// One line of standard input, without echo when that is a terminal.
pub fn from_input() -> Result<String> {
    if std::io::stdin().is_terminal() { prompt() } else { first_line(std::io::stdin().lock()) }
}

fn first_line(source: impl BufRead) -> Result<String> {
    let mut line = String::new();
    source.take(hidden_input::MAX_BYTES as u64).read_line(&mut line).context("Cannot read the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn prompt() -> Result<String> {
    match hidden_input::line("Enter password: ").context("Cannot read the password")? {
        Some(secret) => Ok(secret.reveal().to_owned()),
        None => bail!("Cancelled"),
    }
}

/// Sets the password and says where to connect.
pub async fn set(vm: &dyn EngineVm, password: &Secret, terminal: &mut Terminal) -> Result<Exit> {
    if password.reveal().len() > VNC_BYTES {
        terminal.complain(format!("Note: VNC looks at the first {VNC_BYTES} bytes of a password only"));
    }
    match vm.set_console_password(password.reveal(), VALID).await {
        Ok(()) => {}
        Err(VmError::NotRunning) => {
            terminal.complain("The engine VM is not on this host");
            return Ok(Exit::FAILED);
        }
        Err(error) => {
            terminal.complain(error.to_string());
            return Ok(Exit::FAILED);
        }
    }
    match vm.console(ConsoleKind::Graphical).await {
        Ok(console) => terminal.say(format!(
            "You can now connect the hosted-engine VM with {} at {} for {} s",
            console.kind.to_uppercase(),
            console.address,
            VALID.as_secs()
        )),
        Err(error) => terminal.complain(format!("The password is set; where to connect is unknown: {error}")),
    }
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_wins_over_the_environment_and_loses_its_newline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret\r\nsecond line\n").unwrap();
        assert_eq!(read(Some(&path), Some("other".into())).unwrap().reveal(), "s3cret");
        assert_eq!(read(None, Some("other".into())).unwrap().reveal(), "other");
    }

    #[test]
    fn an_empty_password_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        std::fs::write(&path, "\n").unwrap();
        assert!(read(Some(&path), None).unwrap_err().to_string().contains("empty"));
        let missing = read(Some(&folder.path().join("no")), None).unwrap_err();
        assert!(format!("{missing:#}").contains("no"));
    }
}
