//! The console over a line that a test holds, in a pipe, and at a real agent.
#![allow(clippy::unwrap_used, reason = "tests, and their helpers")]

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use windlass_tests::cli::Cli;
use windlass_tests::cluster::{Cluster, POLICY, Place, Setup};
use windlass_tests::line::Line;
use windlass_tests::privilege::skip;
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// What a test types to confirm.
const SERIAL: &str = "QX0007";

/// Ends when dropped.
struct Console(Child);

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at_line(path: &Path, mut command: Command, role: &str) -> Console {
    command.args(["--role", role, "--serial", SERIAL, "--tty"]).arg(path);
    Console(command.stdin(Stdio::null()).spawn().unwrap())
}

/// A console without an agent.
fn alone(path: &Path, work: &Workdir, role: &str) -> Console {
    let socket = work.join("no.sock").display().to_string();
    at_line(path, Cli::new(PROGRAM).command(&["console", "--socket", &socket]), role)
}

/// As a terminal says how large it is; what the console says of itself.
fn answer_size(line: &mut Line, columns: usize, rows: usize) -> String {
    line.expect("\x1b[6n");
    line.send(format!("\x1b[{rows};{columns}R").as_bytes());
    line.expect("> ")
}

#[test]
fn a_person_at_a_line_without_an_agent_gets_along() {
    let work = Workdir::new("console").unwrap();
    let path = work.join("line");
    let mut line = Line::new(&path);
    let _console = alone(&path, &work, "administrator");
    let banner = answer_size(&mut line, 80, 24);
    assert!(banner.contains("serial=QX0007  role=administrator"), "{banner}");
    line.send(b"commands\r");
    line.expect("COMMAND");
    line.expect("--More--");
    line.send(b"q");
    line.expect("OK\r\n");
    line.send(b"volu\t");
    line.expect("volume ");
    line.send(b"?");
    line.expect("info                 What is on a device");
    line.expect("> volume ");
    line.send(b"info /dev/null\r");
    line.expect("ERR 1\r\n");
    line.send(b"sta\r");
    line.expect("several commands begin with 'sta'");
    line.expect("ERR 2\r\n");
    line.send(b"status\r");
    line.expect("no.sock");
    line.expect("ERR 1\r\n");
    // Nothing is destroyed by a slip.
    line.send(b"gc\rQX0008\r");
    line.expect("that is not the serial number of this node: nothing was done");
    line.expect("ERR 1\r\n");
    line.send(b"gc --dry\r");
    line.expect("ERR ");
    line.send(b"exit\r");
    line.expect("serial=QX0007");
}

#[test]
fn a_line_that_is_cut_is_a_prompt_again_soon_and_a_viewer_changes_nothing() {
    let work = Workdir::new("console").unwrap();
    let path = work.join("line");
    let mut line = Line::new(&path);
    let _console = alone(&path, &work, "viewer");
    line.expect("role=viewer");
    line.send(b"some text that is left");
    line.expect("is left");
    drop(line);
    let mut line = Line::new(&path);
    assert!(answer_size(&mut line, 132, 50).contains("role=viewer"));
    line.send(b"backup home\r");
    line.expect("backup needs the role operator, which this console does not have");
    line.expect("ERR 2\r\n");
}

fn piped(mut command: Command, input: &str) -> (String, Option<i32>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    (String::from_utf8(ended.stdout).unwrap().replace('\r', ""), ended.status.code())
}

#[test]
fn a_script_gets_replies_alone_and_a_code() {
    let work = Workdir::new("console").unwrap();
    let socket = work.join("no.sock").display().to_string();
    let console = || Cli::new(PROGRAM).command(&["console", "--socket", &socket]);
    let (said, code) = piped(console(), "board new loopback\nboard xyz\n");
    let profile = Cli::new(PROGRAM).ok(&["board", "new", "loopback"]);
    assert_eq!(said, format!("{profile}OK\nno command begins with 'xyz'; 'help' lists them\nERR 2\n"));
    assert_eq!(code, Some(1));
    assert_eq!(piped(console(), "").1, Some(0));
}

#[test]
fn a_console_at_an_agent_backs_up_and_shows_its_log() {
    let store = Workdir::new("console").unwrap();
    let repository = store.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    let setup =
        Setup { nodes: 1, upload_kib_s: 65_536, shared_dirs: 1, ..Setup::new(Place::directory(&repository)) };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    cluster.start();
    cluster.make_policy(1);
    let path = store.join("line");
    let mut line = Line::new(&path);
    let _console = at_line(&path, cluster.at(1, &["console"]), "administrator");
    answer_size(&mut line, 80, 24);
    line.send(format!("backup {POLICY}\r").as_bytes());
    line.expect(&format!("of {POLICY}: "));
    line.expect("OK\r\n");
    line.send(format!("points {POLICY}\r").as_bytes());
    line.expect("OK\r\n");
    line.send(b"status\r");
    line.expect("COORDINATOR  node 1");
    line.expect("OK\r\n");
    // A command that waits for an agent which is stopped ends, and the console goes on.
    cluster.signal(1, Signal::SIGSTOP);
    line.send(b"status\r");
    line.expect("does not answer");
    line.expect("ERR 1\r\n");
    line.send(b"term vt100\r");
    line.expect("OK\r\n");
    cluster.signal(1, Signal::SIGCONT);
    // The log was there before the console was.
    line.send(b"tail\r");
    line.expect("windlass: node 1 is up");
    line.expect("OK\r\n");
    cluster.stop(1);
}

/// Screens by pyte and keys by pexpect, which were written without the console.
#[test]
fn screens_of_others_show_what_was_typed() {
    const TEST: &str = "screens_of_others_show_what_was_typed";
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/console_screens.py");
    let there = Command::new("python3").args(["-c", "import pexpect, pyte"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return skip(TEST, "python3 with pexpect and pyte is missing");
    }
    let work = Workdir::new("console").unwrap();
    let socket = work.join("no.sock").display().to_string();
    // Bytes a second of 115,200 baud.
    let ended = Command::new("python3").args([SCRIPT, PROGRAM, &socket, "11520"]).output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&said));
}
