//! `--console`: connects this terminal with the VM's serial console. Ctrl-] ends it.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use engine_vm::{ConsoleKind, EngineVm, VmActivity};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::terminal::{Exit, Terminal};

/// Ctrl-], as virsh and telnet have it.
const ESCAPE: u8 = 0x1d;

/// `--console`.
pub async fn open(vm: &dyn EngineVm, terminal: &mut Terminal) -> Result<Exit> {
    let status = match vm.status().await {
        Ok(status) => status,
        Err(error) => {
            terminal.complain(error.to_string());
            return Ok(Exit::FAILED);
        }
    };
    match status.activity {
        VmActivity::Down => {
            terminal.complain("The engine VM is not on this host");
            return Ok(Exit::FAILED);
        }
        VmActivity::Up => terminal.say("The engine VM is running on this host"),
        other => {
            terminal.say(format!("The engine VM is on this host but its status is {}", other.word()));
            terminal.say("Trying anyway to connect to its console:");
        }
    }
    let console = match vm.console(ConsoleKind::Serial).await {
        Ok(console) => console,
        Err(error) => {
            terminal.complain(error.to_string());
            return Ok(Exit::FAILED);
        }
    };
    let stream = UnixStream::connect(&console.address)
        .await
        .with_context(|| format!("Cannot connect to the serial console {}", console.address))?;
    terminal.say("Escape character is ^]");
    let _raw =
        std::io::stdin().is_terminal().then(Raw::new).transpose().context("Cannot set up the terminal")?;
    bridge(stream, tokio::io::stdin(), tokio::io::stdout()).await.context("The console broke off")?;
    Ok(Exit::OK)
}

/// Copies both ways until the console ends, the keyboard ends, or the escape character comes.
async fn bridge(
    console: UnixStream,
    mut keyboard: impl AsyncRead + Unpin,
    mut screen: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let (mut from_vm, mut to_vm) = console.into_split();
    let (mut shown, mut typed) = ([0; 4096], [0; 256]);
    loop {
        tokio::select! {
            read = from_vm.read(&mut shown) => {
                let len = read?;
                if len == 0 {
                    return Ok(());
                }
                screen.write_all(&shown[..len]).await?;
                screen.flush().await?;
            }
            read = keyboard.read(&mut typed) => {
                let keys = &typed[..read?];
                let end = keys.iter().position(|key| *key == ESCAPE);
                to_vm.write_all(&keys[..end.unwrap_or(keys.len())]).await?;
                if end.is_some() || keys.is_empty() {
                    return Ok(());
                }
            }
        }
    }
}

/// The terminal in raw mode, until dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn new() -> rustix::io::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing sensible can be done about a failure.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_escape_character_ends_it_after_what_was_typed_before() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut screen = Vec::new();
        bridge(ours, &b"ls\r\x1dnever sent"[..], &mut screen).await.unwrap();
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"ls\r");
    }

    #[tokio::test]
    async fn what_the_vm_says_is_shown_until_it_ends() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"login: ").await.unwrap();
        drop(theirs);
        let (_held_open, keyboard) = tokio::io::duplex(16);
        let mut screen = Vec::new();
        bridge(ours, keyboard, &mut screen).await.unwrap();
        assert_eq!(screen, b"login: ");
    }
}
