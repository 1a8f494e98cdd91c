//! The operator at the terminal, while the VM is installed and its engine set up. A port: tests have their own.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, OwnedFd};

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Longest answer.
const LINE_LIMIT: usize = 4096;

/// Somebody who reads and answers, or nobody.
#[async_trait]
pub trait Operator: Send + Sync {
    /// Whether somebody is there.
    fn is_there(&self) -> bool;

    /// Shows what must be in no log.
    fn show(&self, text: &str);

    /// The next line, without its end; never when nobody is there.
    async fn line(&self) -> String;
}

/// The terminal of this process, when standard input is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct AtTerminal;

#[async_trait]
impl Operator for AtTerminal {
    fn is_there(&self) -> bool {
        std::io::stdin().is_terminal()
    }

    fn show(&self, text: &str) {
        println!("{text}");
    }

    async fn line(&self) -> String {
        if self.is_there()
            && let Ok(input) = std::io::stdin().as_fd().try_clone_to_owned()
            && let Some(line) = line_of(input).await
        {
            return line;
        }
        std::future::pending().await
    }
}

/// A line of a terminal, which gives whole lines; nothing is read before there is one, so that giving up the wait
/// swallows no answer. `None` at its end.
async fn line_of(input: OwnedFd) -> Option<String> {
    // Dropped together with this wait, which the other end notices.
    let (given_up, _waits) = rustix::pipe::pipe().ok()?;
    let read = move || {
        let mut both = [PollFd::new(&input, PollFlags::IN), PollFd::new(&given_up, PollFlags::IN)];
        while let Err(Errno::INTR) = poll(&mut both, None) {}
        if !both[1].revents().is_empty() {
            return None;
        }
        let mut bytes = vec![0; LINE_LIMIT];
        let got = rustix::io::read(&input, &mut bytes).ok().filter(|got| *got > 0)?;
        let text = String::from_utf8_lossy(&bytes[..got]);
        Some(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// Offers numbered choices and waits for one.
pub(super) async fn choose<T: Copy>(operator: &dyn Operator, choices: &[(&str, T)]) -> T {
    loop {
        for (number, (text, _)) in choices.iter().enumerate() {
            operator.show(&format!("  ({}) {text}", number + 1));
        }
        let line = operator.line().await;
        let number = line.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        match number.and_then(|number| choices.get(number)) {
            Some((_, choice)) => return *choice,
            None => operator.show(&format!("{line:?} is none of the numbers 1 to {}", choices.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_read_when_it_is_there_and_not_before() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let waited = line_of(read.try_clone().unwrap());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), waited).await.is_err());
        rustix::io::write(&write, b" 2 \n").unwrap();
        assert_eq!(line_of(read.try_clone().unwrap()).await.as_deref(), Some("2"));
        drop(write);
        assert_eq!(line_of(read).await, None);
    }
}
