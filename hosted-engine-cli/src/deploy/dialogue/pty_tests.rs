//! The dialogue on a real terminal: a pseudo-terminal that util-linux's `script` makes, around this test program.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::termios::{LocalModes, tcgetattr};

use super::testing::{StandIn, file};
use super::*;

/// Nothing here takes longer, on the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(30);
/// Names the answer file of the child.
const ANSWERS: &str = "HOSTED_ENGINE_TEST_ANSWERS";

/// The program on the terminal; the tests below run it.
#[test]
#[ignore = "needs a terminal: a_dialogue_on_a_terminal runs it on one"]
fn the_program_on_the_terminal() {
    let answers = std::env::var_os(ANSWERS).expect("set by the test that runs this");
    let (host, paths) = (StandIn::new(), Paths::new("/"));
    let args = DeployArgs { config_append: vec![answers.into()], yes: true, ..DeployArgs::default() };
    let mut terminal = AtTerminal::open().expect("a terminal");
    let asker: Option<&mut dyn Asker> = Some(&mut terminal);
    let means = Means { paths: &paths, lookups: &host, storage: &host, asker, report: &crate::setup::Lines };
    let outcome = request(&args, means);
    let is_usable = tcgetattr(std::io::stdin().as_fd())
        .unwrap()
        .local_modes
        .contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    match outcome {
        Ok(done) => {
            let password = done.secrets.engine_admin.unwrap();
            println!("<done, password of {} bytes, usable {is_usable}>", password.reveal().len());
        }
        Err(error) => println!("<{error}, usable {is_usable}>"),
    }
}

/// Somebody at a terminal.
struct Operator {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Operator {
    fn sit_down(answers: &std::path::Path) -> Self {
        let program = std::env::current_exe().unwrap();
        let command = format!(
            "'{}' deploy::dialogue::pty_tests::the_program_on_the_terminal --exact --ignored --nocapture",
            program.display()
        );
        let mut child = Command::new("script")
            .args(["-qefc", &command, "/dev/null"])
            .env(ANSWERS, answers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("script, of util-linux");
        let (keyboard, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, screen, seen: String::new() }
    }

    /// Waits until `text` is on the screen, below what was waited for before.
    fn see(&mut self, text: &str) -> String {
        let mut new = String::new();
        while !new.contains(text) {
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => new.push_str(&String::from_utf8_lossy(&bytes)),
                Err(why @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("{why}: {text:?} is not on the screen:\n{}{new}", self.seen)
                }
            }
        }
        self.seen.push_str(&new);
        new
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).and_then(|()| self.keyboard.flush()).unwrap();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It has ended unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ALL_BUT_TWO: &str = "OVEHOSTED_STORAGE/domainType=str:nfs\nOVEHOSTED_STORAGE/mntOptions=str:\n\
    OVEHOSTED_STORAGE/storageDomainName=str:a\nOVEHOSTED_STORAGE/storageDatacenterName=str:b\n\
    OVEHOSTED_NETWORK/bridgeIf=str:eth1\nOVEHOSTED_NETWORK/network_test=str:none\nOVEHOSTED_NETWORK/gateway=str:\n\
    OVEHOSTED_NETWORK/openFirewall=bool:False\nOVEHOSTED_VM/hypervisor=str:qemu\nOVEHOSTED_VM/vmBoot=str:pxe\n\
    OVEHOSTED_VM/vmVCpus=int:2\nOVEHOSTED_STORAGE/imgSizeGB=int:25\nOVEHOSTED_VM/vmMemSizeMB=int:4096\n\
    OVEHOSTED_VM/vmMACAddr=str:00:16:3e:00:00:01\nOVEHOSTED_VDSM/consoleType=str:vnc\n\
    OVEHOSTED_VM/cloudInitISO=str:skip\nOVEHOSTED_NETWORK/fqdn=str:engine.example.com\n\
    OVEHOSTED_ENGINE/appHostName=str:c\n";

#[test]
fn a_dialogue_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let mut operator = Operator::sit_down(&file(&folder, ALL_BUT_TWO));
    let screen = operator.see("host:/path): ");
    assert!(screen.contains("--== STORAGE ==--"), "{screen}");
    operator.press("?\n");
    let screen = operator.see("host:/path): ");
    assert!(screen.contains("SERVER:/EXPORT"), "{screen}");
    operator.press("nowhere\n");
    let screen = operator.see("host:/path): ");
    assert!(screen.contains("[ ERROR ] \"nowhere\" must be SERVER:/PATH"), "{screen}");
    operator.press("nas:/he\n");
    let screen = operator.see("admin password");
    assert!(screen.contains("[ INFO  ] Looking at the storage"), "{screen}");
    operator.press("s3cret\u{7f}T\n");
    operator.see("Confirm it: ");
    operator.press("s3creT\n");
    operator.see("<done, password of 6 bytes, usable true>");
    assert!(!operator.seen.contains("s3c"), "{}", operator.seen);
}

#[test]
fn ctrl_c_and_ctrl_d_leave_a_usable_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let answers = file(&folder, ALL_BUT_TWO);
    let mut operator = Operator::sit_down(&answers);
    operator.see("host:/path): ");
    operator.press("\u{4}");
    operator.see("<Cancelled; nothing was changed, usable true>");

    let mut operator = Operator::sit_down(&answers);
    operator.see("host:/path): ");
    operator.press("nas:/he\n");
    operator.see("admin password");
    operator.press("s3cr\u{3}");
    operator.see("<Cancelled; nothing was changed, usable true>");
    assert!(!operator.seen.contains("s3c"), "{}", operator.seen);
}
