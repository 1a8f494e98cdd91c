use super::*;
use crate::testing::{METADATA, entry, private_file};

fn plan(lines: &str) -> Result<Plan, OptionError> {
    Plan::new(&entry("/usr/sbin/fence_toy", lines), &Metadata::parse(METADATA.as_bytes()).unwrap())
}

fn error(lines: &str) -> String {
    plan(lines).unwrap_err().to_string()
}

#[test]
fn options_become_lines_and_the_action_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let password = private_file(&folder, "p", "a=b \"c\n");
    let community = private_file(&folder, "c", "public");
    let lines = format!(
        "plug = 3\noptions = {{ ip = \"10.0.0.1\", username = \"a=b\", ssl = true }}\n\
         password_file = {password:?}\nsecret_files = {{ community = {community:?} }}\n"
    );
    let arguments = plan(&lines).unwrap().read_secrets().unwrap();
    assert_eq!(
        arguments.lines(Action::Off).reveal(),
        "action=off\nip=10.0.0.1\nssl=1\nusername=a=b\nplug=3\npassword=a=b \"c\ncommunity=public\n"
    );
    assert_eq!(arguments.secrets().len(), 2);
    assert!(!format!("{arguments:?} {:?}", arguments.lines(Action::On)).contains("public"));
}

#[test]
fn options_are_checked() {
    assert!(error("options = { ip = \"x\", usrname = \"y\" }").contains("did you mean username?"));
    assert!(
        error("options = { ip = \"x\", zebra = 1 }").contains("there is no option \"zebra\"; the agent's")
    );
    assert_eq!(error("options = { username = \"x\" }"), "the option ip is needed and missing");
    assert_eq!(
        error("options = { ip = \"x\", auth = \"md6\" }"),
        "the option auth = \"md6\" must be one of md5, p&w"
    );
    assert!(error("options = { ip = \"x\", power_wait = \"soon\" }").contains("a number of seconds"));
    assert!(error("options = { ip = \"x\", ipport = \"https\" }").contains("a whole number"));
    assert!(error("options = { ip = \"x\", ssl = 2 }").contains("true or false"));
    assert!(error("options = { ip = \"x\" }\nsecret_files = { secret_key = \"/x\" }").contains("secret_key"));
}

#[test]
fn an_older_name_will_do_with_advice() {
    let plan = plan("options = { ipaddr = \"x\" }").unwrap();
    assert_eq!(plan.advice, ["the option ipaddr is deprecated; use ip"]);
}

#[test]
fn what_the_agent_does_not_take_is_named() {
    let mut metadata = Metadata::parse(METADATA.as_bytes()).unwrap();
    metadata.parameters.retain(|parameter| !matches!(parameter.name.as_str(), "plug" | "password"));
    let plan = |lines: &str| Plan::new(&entry("/usr/sbin/fence_toy", lines), &metadata);
    let ip = "options = { ip = \"x\" }";
    assert_eq!(plan(&format!("{ip}\nplug = 1")), Err(OptionError::NotTaken { key: "plug" }));
    assert_eq!(
        plan(&format!("{ip}\npassword_file = \"/p\"")),
        Err(OptionError::NotTaken { key: "password_file" })
    );
}

#[test]
fn the_pause_is_the_configured_one_or_the_agents() {
    let pause = |lines: &str| plan(lines).unwrap().power_wait;
    assert_eq!(pause("options = { ip = \"x\" }"), Duration::ZERO);
    assert_eq!(pause("options = { ip = \"x\", power_wait = 4 }"), Duration::from_secs(4));
}
