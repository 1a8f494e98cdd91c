use super::*;
use crate::testing::{Toy, entry, lines};

const IP: &str = "options = { ip = \"192.0.2.1\" }";

fn switch(toy: &Toy, lines: &str) -> PowerSwitch {
    PowerSwitch::new(&entry(toy.program.to_str().unwrap(), lines), &Paths::default())
}

async fn off(toy: &Toy, entry: &str) -> (Result<(), FenceError>, Vec<String>) {
    let mut steps = Vec::new();
    let result = switch(toy, entry).off(&mut |step| steps.push(step.clone())).await;
    (result, lines(&steps, toy.program.parent().unwrap()))
}

async fn status(toy: &Toy) -> Result<Power, FenceError> {
    switch(toy, IP).status(&mut |_| {}).await
}

#[tokio::test]
async fn off_is_done_once_the_status_says_so() {
    let toy = Toy::new("");
    let (result, said) = off(&toy, &format!("{IP}\nplug = 4")).await;
    result.unwrap();
    assert_eq!(said, ["off: asked fence_toy at 192.0.2.1 plug 4", "off: confirmed"]);
    assert_eq!((toy.actions().join(" ").as_str(), toy.power().as_str()), ("off status", "off"));
    switch(&toy, IP).on(&mut |_| {}).await.unwrap();
    assert_eq!(toy.power(), "on");
}

#[tokio::test]
async fn an_off_that_does_nothing_is_not_done() {
    let toy = Toy::new("off() { :; }");
    let (result, said) = off(&toy, &format!("{IP}\noff_timeout = 3")).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("is not confirmed: the power is still on"), "{error}");
    assert!(said[1].starts_with("off: the power is still on after"), "{said:?}");
}

#[tokio::test]
async fn a_slow_switch_is_waited_for() {
    let toy = Toy::new("off() { (sleep 1) ; echo going >\"$dir/power\"; }
        status() { case $(cat \"$dir/power\") in going) echo off >\"$dir/power\"; exit 0;; off) exit 2;; *) exit 0;; esac; }");
    off(&toy, IP).await.0.unwrap();
    assert_eq!(toy.actions(), ["off", "status", "status"]);
}

#[tokio::test]
async fn the_power_has_the_last_word_over_an_agent_that_failed() {
    let toy = Toy::new("off() { echo off >\"$dir/power\"; echo 'Connection lost' >&2; exit 4; }");
    let (result, said) = off(&toy, IP).await;
    result.unwrap();
    assert!(said[1].contains("exit code 4; it said: Connection lost; looking"), "{said:?}");

    let toy = Toy::new("off() { exit 3; }");
    let error = off(&toy, IP).await.0.unwrap_err();
    assert!(matches!(error, FenceError::Failed { end: End::Code(3), action: Action::Off, .. }), "{error}");
    assert_eq!(toy.actions(), ["off", "status"], "a refusal is not waited for");

    let toy = Toy::new("off() { echo slow >\"$dir/power\"; echo \"Failed: Timed out waiting to power OFF\" >&2; exit 1; }
        status() { case $(cat \"$dir/power\") in slow) echo off >\"$dir/power\"; exit 0;; off) echo Status: OFF; exit 2;; *) exit 0;; esac; }");
    off(&toy, IP).await.0.unwrap();
    assert_eq!(toy.actions(), ["off", "status", "status"], "an agent that gave up waiting is not the end");
}

#[tokio::test]
async fn an_agent_that_ends_with_2_whatever_it_is_asked_has_switched_nothing_off() {
    let toy = Toy::new("off() { exit 2; }\nstatus() { exit 2; }");
    let error = off(&toy, IP).await.0.unwrap_err();
    assert!(matches!(error, FenceError::Failed { end: End::Code(2), action: Action::Off, .. }), "{error}");
}

#[tokio::test]
async fn an_agent_that_hangs_is_killed_at_the_deadline() {
    let toy = Toy::new("off() { echo 'talking to the device' >&2; sleep 1000; }");
    let (result, _) = off(&toy, &format!("{IP}\noff_timeout = 3")).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("did not end within 3 s when asked for \"off\" and was killed"), "{error}");
    assert!(error.contains("it said: talking to the device"), "{error}");

    let toy = Toy::new("off() { echo off >\"$dir/power\"; sleep 1000; }");
    off(&toy, &format!("{IP}\noff_timeout = 3")).await.0.unwrap();
}

#[tokio::test]
async fn exit_codes_of_status_are_believed_when_the_words_do_not_contradict() {
    for (script, power) in [
        ("exit 0", Power::On),
        ("exit 2", Power::Off),
        ("echo 'Status: OFF'; echo 'DeprecationWarning: pipes' >&2; exit 2", Power::Off),
        ("echo 'warning' >&2; exit 0", Power::On),
    ] {
        assert_eq!(status(&Toy::new(&format!("status() {{ {script}; }}"))).await.unwrap(), power, "{script}");
    }
    for script in [
        "echo \"python3: can't open file\" >&2; exit 2",
        "echo 'Status: ON'; exit 2",
        "echo 'Status: OFF'; exit 0",
    ] {
        let error = status(&Toy::new(&format!("status() {{ {script}; }}"))).await.unwrap_err();
        assert!(matches!(error, FenceError::Unclear { .. }), "{script}: {error}");
    }
    for script in ["exit 1", "exit 8", "kill -9 $$"] {
        let error = status(&Toy::new(&format!("status() {{ {script}; }}"))).await.unwrap_err();
        assert!(matches!(error, FenceError::Failed { action: Action::Status, .. }), "{script}: {error}");
    }
}

#[tokio::test]
async fn secrets_reach_the_agent_on_its_input_and_nobody_else() {
    let toy = Toy::new(
        "off() { printf '%s\\n' \"$input\" >&2; tr '\\0' '\\n' </proc/$$/cmdline >\"$dir/arguments\"; env >>\"$dir/arguments\"; exit 1; }",
    );
    let password = toy.private_file("password", "hunter2\n");
    let entry = format!("{IP}\npassword_file = {password:?}");
    let (result, said) = off(&toy, &entry).await;
    let error = result.unwrap_err();
    assert!(toy.log().contains("action=off\nip=192.0.2.1\npassword=hunter2\n--"), "{}", toy.log());
    for text in
        [error.to_string(), format!("{error:?}"), said.join("\n"), format!("{:?}", switch(&toy, &entry))]
    {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(error.to_string().contains("password=(secret)"), "{error}");
    let outside = std::fs::read_to_string(toy.file("arguments")).unwrap();
    assert!(!outside.contains("hunter2") && outside.contains("LC_ALL=C.UTF-8"), "{outside}");
    assert!(!outside.contains("CARGO"), "the environment is not ours: {outside}");
}

#[tokio::test]
async fn nothing_is_switched_with_options_that_are_wrong() {
    let toy = Toy::new("");
    let error = off(&toy, "options = { ip = \"x\", usrname = \"y\" }").await.0.unwrap_err().to_string();
    assert!(error.contains("there is no option \"usrname\"; did you mean username?"), "{error}");
    let password = toy.private_file("password", "x");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = off(&toy, &format!("{IP}\npassword_file = {password:?}")).await.0.unwrap_err().to_string();
    assert!(error.contains("has mode 0644") && error.contains("chmod 600"), "{error}");
    assert!(toy.actions().is_empty() && toy.power() == "on");
}

#[tokio::test]
async fn an_agent_that_cannot_do_it_is_not_asked() {
    let toy = Toy::new(
        "metadata() { grep -v '\"status\"' \"$dir/metadata.xml\" | sed '/^<actions>/a <action name=\"monitor\"/><action name=\"off\"/>'; }",
    );
    let error = off(&toy, IP).await.0.unwrap_err().to_string();
    assert!(
        error.contains("has no action \"status\", so that it cannot show that the power changed"),
        "{error}"
    );
    switch(&toy, IP).monitor(&mut |_| {}).await.unwrap();
    assert_eq!(toy.actions(), ["monitor"]);

    let toy = Toy::new("metadata() { echo 'usage: fence_x'; }");
    let error = off(&toy, IP).await.0.unwrap_err().to_string();
    assert!(error.contains("is this a fence agent?"), "{error}");
    let toy = Toy::new("metadata() { head -c 2000000 /dev/zero; }");
    let error = off(&toy, IP).await.0.unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let missing = PowerSwitch::new(&entry("fence_that_is_not_there", ""), &Paths::default());
    let error = missing.off(&mut |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("/usr/sbin/fence_that_is_not_there cannot be started"), "{error}");
    assert!(error.contains("is the package fence-agents installed?"), "{error}");
}
