use super::*;
use crate::testing::Toy;
use ha_config::HaToml;

const BAD: &str = "off() { exit 1; }\non() { exit 1; }\nstatus() { exit 1; }";

/// Host 2 with these agents at these levels.
fn host(agents: &[(&Toy, &str)]) -> HostPower {
    let text: String = agents
        .iter()
        .map(|(toy, level)| toy.entry(&format!("options = {{ ip = \"x\" }}\n{level}")))
        .collect();
    let paths = Paths::default();
    let toml = HaToml::parse(&paths, &text).unwrap();
    HostPower::of(&toml.fencing, &paths, HostId::new(2).unwrap(), None).unwrap()
}

fn done(toy: &Toy) -> String {
    toy.actions().join(" ")
}

#[tokio::test]
async fn the_next_level_is_tried_when_one_fails() {
    let (bad, good, spare) = (Toy::new(BAD), Toy::new(""), Toy::new(""));
    let mut said = Vec::new();
    let host = host(&[(&bad, ""), (&good, ""), (&spare, "")]);
    host.off(&mut |step| said.push(step.to_string())).await.unwrap();
    assert_eq!((good.power(), done(&spare)), ("off".to_owned(), String::new()));
    assert!(
        said.iter().any(
            |line| line.starts_with("off: level 1 failed: ") && line.ends_with("; trying the next level")
        )
    );
    assert!(said.last().unwrap().starts_with("off: confirmed after"), "{said:?}");
}

#[tokio::test]
async fn when_every_level_fails_each_reason_is_given() {
    let (one, two) = (Toy::new(BAD), Toy::new("off() { :; }\nstatus() { exit 3; }"));
    let host = host(&[(&one, ""), (&two, "off_timeout = 3")]);
    let error = host.off(&mut |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("\"off\" failed at every level: "), "{error}");
    assert!(error.contains("exit code 1") && error.contains("is not confirmed: "), "{error}");
}

#[tokio::test]
async fn all_switches_of_a_level_must_be_off() {
    let (one, two) = (Toy::new(""), Toy::new(""));
    let both = host(&[(&one, "level = 1"), (&two, "level = 1")]);
    assert_eq!(both.levels().len(), 1);
    both.off(&mut |_| {}).await.unwrap();
    assert_eq!((one.power(), two.power()), ("off".to_owned(), "off".to_owned()));
    assert_eq!(both.status(&mut |_| {}).await.unwrap(), Power::Off);
    std::fs::write(two.file("power"), "on").unwrap();
    assert_eq!(both.status(&mut |_| {}).await.unwrap(), Power::On);

    let bad = Toy::new("off() { exit 1; }");
    let half = host(&[(&one, "level = 1"), (&bad, "level = 1")]);
    assert!(matches!(half.off(&mut |_| {}).await, Err(HostError::Failed { action: Action::Off, .. })));
    let unknown = Toy::new(BAD);
    let half = host(&[(&one, "level = 1"), (&unknown, "level = 1")]);
    assert!(half.status(&mut |_| {}).await.is_err(), "one off and one unknown is not off");
}

#[tokio::test]
async fn a_reboot_is_all_off_before_anything_is_on() {
    let (one, two) = (Toy::new(""), Toy::new(""));
    let mut said = Vec::new();
    let host = host(&[(&one, "level = 1"), (&two, "level = 1")]);
    host.reboot(&mut |step| said.push(step.to_string())).await.unwrap();
    let asked: Vec<_> =
        said.iter().filter_map(|line| line.split_once(": asked")).map(|(action, _)| action).collect();
    assert_eq!(asked, ["off", "off", "on", "on"]);
    assert_eq!((done(&one).as_str(), one.power().as_str()), ("off status on status", "on"));
    assert_eq!(two.power(), "on");
}

#[tokio::test]
async fn a_reboot_that_is_not_confirmed_off_switches_nothing_on() {
    let stuck = Toy::new("off() { :; }");
    let host = host(&[(&stuck, "off_timeout = 3")]);
    assert!(matches!(host.reboot(&mut |_| {}).await, Err(HostError::Failed { action: Action::Off, .. })));
    assert!(!done(&stuck).contains("on"), "{}", done(&stuck));
}

#[tokio::test]
async fn a_reboot_switches_on_what_a_failed_level_had_switched_off() {
    let (half, bad, good) = (Toy::new(""), Toy::new(BAD), Toy::new(""));
    let host = host(&[(&half, "level = 1"), (&bad, "level = 1"), (&good, "level = 2")]);
    host.reboot(&mut |_| {}).await.unwrap();
    assert_eq!((half.power(), good.power()), ("on".to_owned(), "on".to_owned()));
    assert_eq!(done(&half), "off status on status");
}

#[tokio::test]
async fn a_host_that_stays_off_after_a_reboot_is_said_to_be_off() {
    let toy = Toy::new("on() { exit 6; }");
    let error = host(&[(&toy, "")]).reboot(&mut |_| {}).await.unwrap_err();
    assert!(matches!(error, HostError::LeftOff { .. }));
    assert!(error.to_string().contains("the host was switched off, confirmed, and not all"), "{error}");
}

#[tokio::test]
async fn on_uses_the_next_level_too() {
    let (bad, good) = (Toy::new(BAD), Toy::new(""));
    host(&[(&bad, ""), (&good, "")]).on(&mut |_| {}).await.unwrap();
    assert_eq!(done(&good), "on status");
}

#[test]
fn a_host_without_entries_has_no_power_switch() {
    let table = FencingTable::default();
    assert!(HostPower::of(&table, &Paths::default(), HostId::new(2).unwrap(), Some("h2")).is_none());
}
