//! The control socket: one line with a mode in, one line out. `?` asks for the mode. It is never blocked by a
//! request that hangs.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::fault::{Fault, Mode};

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers until the process ends.
pub fn serve(listener: &UnixListener, fault: &Fault) {
    for stream in listener.incoming().flatten() {
        // One client that goes away or dawdles costs nobody else more than PATIENCE.
        let _ = answer(&stream, fault);
    }
}

fn answer(stream: &UnixStream, fault: &Fault) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(100)).read_line(&mut line)?;
    let mut stream = stream;
    if line.trim() == "?" {
        return writeln!(stream, "{}", fault.mode());
    }
    match line.parse::<Mode>() {
        Ok(mode) => {
            fault.set(mode);
            writeln!(stream, "{mode}")
        }
        Err(error) => writeln!(stream, "error: {error}"),
    }
}

/// Switches the storage behind `socket` to `mode`.
pub fn tell(socket: &Path, mode: Mode) -> anyhow::Result<()> {
    let answer = exchange(socket, &mode.to_string())?;
    if answer != mode.to_string() {
        bail!("the storage of this host did not switch to {mode}: {answer}");
    }
    Ok(())
}

/// The mode of the storage behind `socket`.
pub fn ask(socket: &Path) -> anyhow::Result<Mode> {
    Ok(exchange(socket, "?")?.parse()?)
}

fn exchange(socket: &Path, line: &str) -> anyhow::Result<String> {
    let attempt = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    };
    attempt().with_context(|| format!("no answer from the storage's control socket {}", socket.display()))
}
