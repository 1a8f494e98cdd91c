use super::*;
use crate::testing::Toy;
use rustix::process::test_kill_process;

const LONG: Duration = Duration::from_secs(20);

async fn run_script(script: &str, input: &str, deadline: Duration) -> (Toy, Result<Finished, NotFinished>) {
    let toy = Toy::with_script(script);
    let done = run(&toy.program, &Secret::new(input), deadline).await;
    (toy, done)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Waits until nobody has this number any more.
async fn wait_until_gone(pid: &str) {
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let gone = async {
        while test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, gone).await.expect("the process must be gone");
}

#[tokio::test]
async fn input_and_output_pass_and_there_are_no_arguments() {
    let (_toy, done) = run_script("cat; echo $# >&2; exit 7", "a=b\nc=d\n", LONG).await;
    let Ok(done) = done else { panic!("it must end") };
    assert_eq!((done.end, text(&done.out), text(&done.err)), (End::Code(7), "a=b\nc=d\n", "0\n"));
}

#[tokio::test]
async fn an_end_without_reading_and_a_signal_are_ends() {
    let (_toy, done) = run_script("exit 3", &"x".repeat(1_000_000), LONG).await;
    assert!(matches!(done, Ok(Finished { end: End::Code(3), .. })));
    let (_toy, done) = run_script("kill -9 $$", "", LONG).await;
    assert!(matches!(done, Ok(Finished { end: End::Signal(9), .. })));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let done = run(Path::new("/nonexistent/fence_x"), &Secret::new(""), LONG).await;
    assert!(matches!(done, Err(NotFinished::Io(error)) if error.kind() == io::ErrorKind::NotFound));
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_is_killed() {
    let script = "sleep 1000 & echo $! $$; echo said >&2; wait";
    let (_toy, done) = run_script(script, "", Duration::from_secs(3)).await;
    let Err(NotFinished::Deadline { out, err }) = done else { panic!("it must not end") };
    assert_eq!(text(&err), "said\n");
    for pid in text(&out).split_whitespace() {
        wait_until_gone(pid).await;
    }
}

#[tokio::test]
async fn what_outlives_its_leader_is_killed_at_once() {
    let (_toy, done) = run_script("sleep 1000 & echo $!; exit 0", "", LONG).await;
    let Ok(done) = done else { panic!("it must end") };
    wait_until_gone(text(&done.out)).await;
}

#[tokio::test]
async fn a_process_that_left_the_group_holds_nobody_up() {
    let (_toy, done) = run_script("setsid sleep 5 & echo here; exit 0", "", LONG).await;
    let Ok(done) = done else { panic!("it must end") };
    assert_eq!(text(&done.out), "here\n");
}

#[tokio::test]
async fn when_nobody_waits_any_more_the_group_is_killed() {
    let toy = Toy::with_script("echo $$ >\"$0.pid\"; sleep 1000");
    let pid_file = toy.program.with_extension("pid");
    let input = Secret::new("");
    let running = run(&toy.program, &input, LONG);
    let started = async {
        loop {
            match std::fs::read_to_string(&pid_file) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let pid = tokio::select! {
        biased;
        pid = started => pid,
        _ = running => panic!("it must not end"),
    };
    wait_until_gone(&pid).await;
}

#[tokio::test]
async fn output_is_bounded_and_the_rest_is_drained() {
    let (_toy, done) = run_script("head -c 3000000 /dev/zero; echo end >&2", "", LONG).await;
    let Ok(done) = done else { panic!("it must end") };
    assert_eq!((done.out.len(), text(&done.err)), (MAX_BYTES + 1, "end\n"));
}
