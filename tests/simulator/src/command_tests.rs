//! Whatever can be commanded can be written down and read again.

use super::*;

/// One of each form, as a script has it.
const EACH: &str = "\
boot all
power-off vm-host for 20s
freeze host1 for 59.999s
thaw host1
kill agent host2
kill broker others
restart agent all
restart broker vm-host
stop services host3 for 300s
start services host3
storage vm-host good
storage vm-host stalled for 0.250s
storage all failing
storage host2 read-only
storage host2 full
storage host2 delay 15s
storage host2 delay 15.001s once
storage all slow 2s for 60s
storage others stale 30s
storage host1 tears-next-write
storage host1 misdirects-next-write 0
block 0 corrupt
block 1 rots for 60s
block 2 unreadable
block 3 too-new
block 2000 empty
block 1 heals
network host1 0.2 for 30s
bridge host1 down
bridge host1 up
memory host1 1000.5
load all 0.95
vm crashes
vm hangs
vm sick for 300s
vm well
vm pauses for 10s
vm resumes
vm powers-off
vm vanishes
starts host1 fail 3
guest boots-in 30s 90s
guest moves-in 5s 20s
migrations vm-host fail 2 for 60s
hypervisor host2 cannot-migrate for 60s
hypervisor all can-migrate
operator moves-vm vm-host
operator moves-vm host1 to host3
maintenance local forced vm-host for 60s
guest ignores-shutdown yes for 60s
guest ignores-shutdown no
guest page-takes 4.999s
migrate to host2 takes 20s and arrives
migrate to host2 takes 20s and fails
migrate to host2 takes 20s and loses-source
migrate to host2 takes 20s and loses-destination
clock host1 step -3600
clock host1 rate 200
maintenance global on host1 for 60s
maintenance global off all
maintenance local on vm-host
maintenance local off host1
operator starts host2
operator stops vm-host
operator kills vm-host
heal all
expect healthy
expect no-vm within 20s
expect vm-on vm-host
expect same-vm
expect other-vm
expect state all EngineDown
expect score host1 2400
expect block vm-host paused
expect block others down within 1s
expect off host1
expect all-seen
expect unseen host3 within 61s
";

#[test]
fn each_command_is_printed_as_it_is_read() {
    for line in EACH.lines() {
        let written = format!("{:>10} {line}", "10s");
        let step = Step::parse(&written).expect(line);
        assert_eq!(step.to_string(), written);
        assert_eq!(Step::parse(&step.to_string()).expect(line), step);
    }
}

#[test]
fn what_ends_a_command_is_a_command_that_nothing_ends_twice() {
    for line in EACH.lines() {
        let command = Step::parse(&format!("1s {line}")).expect(line).command;
        if let Some(undone) = command.undone() {
            let text = format!("1s {undone}");
            assert_eq!(Step::parse(&text).expect(&text).command, undone, "{line}");
        }
    }
}

#[test]
fn the_grammar_names_the_first_word_of_each_command() {
    for line in EACH.lines() {
        let word = line.split(' ').next().expect("a line has a word");
        assert!(GRAMMAR.contains(word), "{word}");
    }
}

#[test]
fn what_is_no_command_is_refused_with_advice() {
    for (line, what) in [
        ("10s reboot all", "no such command"),
        ("10 boot all", "does not begin with a time"),
        ("10s boot host0", "no such command"),
        ("10s network host1 1.5", "no such command"),
        ("10s vm crashes for 10s", "nothing ends it"),
        ("10s boot all for ever", "that is no time"),
    ] {
        let error = Step::parse(line).expect_err(line).to_string();
        assert!(error.contains(what), "{error}");
    }
}
