//! The console as a whole, against the same model of a terminal. Source: ours.

use super::super::screen::is_narrow;
use super::super::screen::tests::Terminal;
use super::*;

const SERIAL_OF_NODE: &str = "QX0007";

fn config(mode: Mode) -> Config<'static> {
    Config {
        prompt: "n1> ",
        serial: SERIAL_OF_NODE,
        role: Role::Administrator,
        mode: Some(mode),
        size: Some((80, 24)),
    }
}

struct Seat {
    shell: Shell,
    terminal: Terminal,
    now_ms: u64,
}

impl Seat {
    fn new(mode: Mode) -> Seat {
        let mut shell = Shell::new(&config(mode));
        shell.turn(0);
        let mut seat = Seat { shell, terminal: Terminal::new(80, mode == Mode::Dumb), now_ms: 0 };
        seat.send(usize::MAX);
        seat
    }

    fn send(&mut self, most: usize) {
        let mut left = most;
        while left > 0 && !self.shell.output().is_empty() {
            let bytes = self.shell.output()[..self.shell.output().len().min(left)].to_vec();
            self.terminal.feed(&bytes);
            self.shell.sent(bytes.len(), self.now_ms);
            left -= bytes.len();
        }
    }

    fn types(&mut self, text: &str) {
        self.shell.feed(text.as_bytes(), self.now_ms);
        self.send(usize::MAX);
    }

    fn replies(&mut self, text: &str, code: u8) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let taken = self.shell.reply(rest, self.now_ms);
            rest = &rest[taken..];
            self.send(usize::MAX);
            assert!(taken > 0 || !self.shell.paged, "a page is full");
        }
        self.shell.done(code, self.now_ms);
        self.send(usize::MAX);
    }

    fn call(&mut self) -> Vec<std::string::String> {
        assert_eq!(self.shell.next_action(), Some(Action::Run));
        self.shell.call().words().map(str::to_owned).collect()
    }

    fn screen(&self) -> std::string::String {
        format!("{}\n{}", self.terminal.above.join("\n"), self.terminal.text())
    }

    /// The row of the cursor is what it should be.
    fn check(&self) {
        let (prompt, text, cursor) = self.shell.shown();
        let row = format!("{prompt}{text}");
        if row.chars().count() < 79 {
            let plain: std::string::String =
                row.chars().map(|c| if is_narrow(c) { c } else { '?' }).collect();
            assert_eq!(self.terminal.text(), plain.trim_end());
            assert_eq!(self.terminal.at, prompt.chars().count() + text[..cursor].chars().count());
        }
        assert!(self.terminal.text().chars().count() < 80);
    }
}

#[test]
fn a_command_is_typed_run_and_answered() {
    for mode in [Mode::Vt100, Mode::Dumb] {
        let mut seat = Seat::new(mode);
        assert_eq!(seat.terminal.text(), "n1>");
        seat.types("pol sh 'my home'\r");
        assert_eq!(seat.call(), ["policy", "show", "my home"]);
        // What is typed meanwhile waits, and so does nothing else.
        seat.types("status\r");
        assert_eq!(seat.shell.next_action(), None);
        seat.replies("policy my home\nnothing due", 0);
        assert!(seat.screen().contains("\npolicy my home\nnothing due\nOK\n"), "{}", seat.screen());
        assert_eq!(seat.call(), ["status"]);
        seat.replies("", 3);
        assert!(seat.screen().ends_with("\nERR 3\nn1>"), "{}", seat.screen());
        seat.types("\x1b[A\x1b[A!");
        assert_eq!(seat.terminal.text(), "n1> pol sh 'my home'!");
        seat.check();
    }
}

#[test]
fn a_program_gets_replies_and_how_they_ended_and_nothing_else() {
    let mut seat = Seat::new(Mode::Script);
    seat.shell.log("warn: x", 0);
    seat.types("status --json\rnonsense\r\nstat\tus\n");
    assert_eq!(seat.call(), ["status", "--json"]);
    seat.shell.progress("50 %", 5000);
    let long: std::string::String = "x\n".repeat(100);
    seat.replies(&long, 0);
    assert_eq!(
        seat.screen(),
        format!("{long}OK\nno command begins with 'nonsense'; 'help' lists them\nERR 2\n")
    );
    assert_eq!(seat.call(), ["status"]);
}

#[test]
fn what_destroys_needs_the_serial_number() {
    for (answer, runs) in
        [("QX0007\r", true), ("QX0008\r", false), ("\r", false), ("y\r", false), ("QX0007\x03", false)]
    {
        for mode in [Mode::Vt100, Mode::Dumb, Mode::Script] {
            let mut seat = Seat::new(mode);
            seat.types("point exp home@3\r");
            assert_eq!(seat.shell.next_action(), None);
            seat.types(answer);
            assert_eq!(seat.shell.next_action() == Some(Action::Run), runs, "{answer:?}");
            if !runs {
                assert!(seat.screen().contains("nothing was done\nERR 1\n"), "{}", seat.screen());
            }
        }
    }
    // It cannot wait for long, nor be answered by the history.
    let mut seat = Seat::new(Mode::Vt100);
    seat.types("gc\r");
    seat.now_ms = ANSWER_MS + 1;
    seat.shell.turn(seat.now_ms);
    seat.send(usize::MAX);
    assert!(seat.screen().contains("not confirmed within 60 s"), "{}", seat.screen());
    seat.types("gc\rQX0007\r");
    assert_eq!(seat.call(), ["gc"]);
    seat.replies("", 0);
    seat.types("\x1b[A");
    assert_eq!(seat.terminal.text(), "n1> gc");
    // A rehearsal destroys nothing.
    seat.types(" --dry\r");
    assert_eq!(seat.call(), ["gc", "--dry-run"]);
}

#[test]
fn a_role_and_a_node_without_a_serial_number_refuse() {
    let mut shell = Shell::new(&Config { role: Role::Viewer, ..config(Mode::Script) });
    shell.feed(b"backup home\rhelp point expire\rstatus\r", 0);
    let said = std::string::String::from_utf8_lossy(shell.output()).into_owned();
    assert!(said.contains("backup needs the role operator"), "{said}");
    assert!(said.contains("point expire: Expire"), "{said}");
    assert_eq!(shell.next_action(), Some(Action::Run));
    let mut shell = Shell::new(&Config { serial: "", ..config(Mode::Script) });
    shell.feed(b"gc\r\r", 0);
    assert!(std::string::String::from_utf8_lossy(shell.output()).contains("no serial number"));
    assert_eq!(shell.next_action(), None);
}

#[test]
fn tab_and_question_mark_help_at_every_place() {
    let mut seat = Seat::new(Mode::Vt100);
    seat.types("sto\t");
    assert_eq!(seat.terminal.text(), "n1> stop");
    assert_eq!(seat.terminal.at, "n1> stop ".len());
    seat.types("\x15po\t");
    assert!(seat.screen().contains("\npolicy  points  point\nn1> po"), "{}", seat.screen());
    seat.types("int\t\tre\t");
    assert!(seat.screen().contains("point"), "{}", seat.screen());
    seat.types("\x15point re\t");
    assert_eq!(seat.terminal.text(), "n1> point release");
    seat.types("\x15backup home ?");
    assert!(seat.screen().contains("\n  --dry-run            Write nothing"), "{}", seat.screen());
    assert_eq!(seat.terminal.text(), "n1> backup home");
    seat.types("--pa\t");
    assert_eq!(seat.terminal.text(), "n1> backup home --paranoid");
    // A pattern in quotes has its own question marks.
    seat.types("\x15find home '*.c?");
    assert_eq!(seat.terminal.text(), "n1> find home '*.c?");
    seat.check();
}

#[test]
fn help_goes_page_by_page() {
    let mut seat = Seat::new(Mode::Vt100);
    seat.types("help\r");
    assert!(seat.terminal.text().starts_with("--More--"));
    seat.shell.log("warn: not now", 0);
    let before = seat.terminal.above.len();
    seat.types("\r");
    assert_eq!(seat.terminal.above.len(), before + 1);
    seat.types(" x");
    assert!(seat.terminal.above.len() > before + 15);
    seat.types("q");
    assert!(seat.screen().contains("\nOK\n"));
    assert!(!seat.screen().contains("warn") && seat.terminal.text() == "n1>");
    seat.now_ms = 5000;
    seat.shell.turn(5000);
    seat.send(usize::MAX);
    assert!(seat.screen().contains("(1 lines of the log were left out"));
    seat.types("status\r");
    assert_eq!(seat.call(), ["status"]);
    let rows = "row\n".repeat(30);
    let taken = seat.shell.reply(rows.as_bytes(), 0);
    assert_eq!(seat.shell.reply(&rows.as_bytes()[taken..], 0), 0);
    seat.types("q");
    assert_eq!(seat.shell.reply(&rows.as_bytes()[taken..], 0), rows.len() - taken);
    seat.replies("", 0);
    seat.check();
}

#[test]
fn what_is_too_long_or_too_early_is_refused_by_name() {
    let mut seat = Seat::new(Mode::Vt100);
    for _ in 0..64 {
        seat.types(&"x".repeat(1024));
    }
    seat.types("\r");
    assert!(seat.screen().contains("(LINE_BYTES_MAX): it is refused\nERR 2\n"), "{}", seat.screen());
    seat.types("status\r");
    assert_eq!(seat.call(), ["status"]);
    // A script that does not wait for its reply.
    let script = "points home\r".repeat(1000);
    seat.types(&script);
    seat.replies("", 0);
    let mut runs = 0;
    while seat.shell.next_action() == Some(Action::Run) {
        runs += 1;
        assert_eq!(seat.shell.call().words().collect::<Vec<_>>(), ["points", "home"]);
        seat.replies("", 0);
    }
    assert_eq!(runs, TYPED_BYTES_MAX / "points home\r".len());
    assert!(seat.screen().contains("TYPED_BYTES_MAX"), "{}", seat.screen());
    seat.types("status\rstatus\r");
    assert_eq!(seat.call(), ["status"]);
}

#[test]
fn an_interrupt_counts_at_once() {
    let mut seat = Seat::new(Mode::Vt100);
    seat.types("backup home\rstatus\r");
    assert_eq!(seat.call(), ["backup", "home"]);
    seat.types("\x03");
    assert_eq!(seat.shell.next_action(), Some(Action::Interrupt));
    seat.replies("stopping\n", 130);
    assert!(seat.screen().ends_with("ERR 130\nn1>"));
    assert_eq!(seat.shell.next_action(), None);
    seat.types("some\x03");
    assert_eq!(seat.terminal.text(), "n1>");
    seat.types("\x04");
    assert_eq!(seat.shell.next_action(), Some(Action::Close));
}

#[test]
fn a_break_leaves_an_empty_prompt() {
    let mut seat = Seat::new(Mode::Vt100);
    seat.types("backup home\rabc");
    assert_eq!(seat.call(), ["backup", "home"]);
    seat.shell.reset(0);
    assert_eq!(seat.shell.next_action(), Some(Action::Interrupt));
    seat.replies("x", 130);
    assert_eq!(seat.terminal.text(), "n1>");
    seat.types("xyz");
    seat.shell.reset(0);
    seat.send(usize::MAX);
    assert_eq!(seat.terminal.text(), "n1>");
    seat.check();
}

#[test]
fn a_line_that_is_stopped_loses_bytes_and_says_how_many() {
    let mut seat = Seat::new(Mode::Vt100);
    seat.types("ls home\r");
    assert_eq!(seat.call(), ["ls", "home"]);
    assert!(seat.shell.reply(&[b'x'; 1500], 0) > 0);
    seat.shell.give_up();
    assert_eq!(seat.shell.reply(&[b'x'; 5000], 0), 5000);
    seat.shell.done(0, 0);
    seat.send(usize::MAX);
    assert!(
        seat.screen().contains("bytes are missing here: the line was stopped)\nOK\nn1>"),
        "{}",
        seat.screen()
    );
    seat.check();
}

#[test]
fn progress_stands_on_a_row_of_its_own_below_the_log() {
    let mut seat = Seat::new(Mode::Vt100);
    seat.types("backup home\r");
    let _ = seat.call();
    for ms in 0..3000 {
        seat.shell.progress(&format!("{ms} of 3000"), ms);
    }
    seat.shell.log("warn: slow", 3000);
    seat.send(usize::MAX);
    assert_eq!(seat.terminal.text(), "2000 of 3000");
    assert!(seat.screen().contains("\nwarn: slow\n2000"), "{}", seat.screen());
    seat.replies("done\n", 0);
    assert!(seat.screen().ends_with("\nwarn: slow\ndone\nOK\nn1>"), "{}", seat.screen());
}

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Keys, as a person presses them.
const KEYS: [&[u8]; 32] = [
    b"a",
    b"b",
    b" ",
    b"s",
    b"t",
    b"-",
    b"?",
    b"\t",
    b"\r",
    b"\x7f",
    b"\x1b[A",
    b"\x1b[B",
    b"\x1b[C",
    b"\x1b[D",
    b"\x1b[H",
    b"\x1b[F",
    b"\x1b[3~",
    b"\x1b[1;5D",
    b"\x01",
    b"\x05",
    b"\x0b",
    b"\x15",
    b"\x17",
    b"\x0c",
    b"\x03",
    b"status",
    b"point ",
    "ä".as_bytes(),
    "界".as_bytes(),
    b"\xc3",
    b"'",
    b"help\r",
];

#[test]
fn random_keys_and_log_storms_leave_prompt_and_line() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let mode = if seed % 3 == 0 { Mode::Dumb } else { Mode::Vt100 };
        let mut seat = Seat::new(mode);
        let (mut logged, mut running, mut closed) = (0_u64, false, false);
        for _ in 0..400 {
            seat.now_ms += random.below(300) as u64;
            match random.below(10) {
                0..=4 => seat.shell.feed(KEYS[random.below(KEYS.len())], seat.now_ms),
                5 => {
                    let bytes: Vec<u8> =
                        (0..random.below(40)).map(|_| (random.below(256) as u8).max(5)).collect();
                    seat.shell.feed(&bytes, seat.now_ms);
                }
                6 => {
                    for _ in 0..random.below(30) {
                        logged += 1;
                        let line = format!("warn: {logged} {}", "x".repeat(random.below(150)));
                        seat.shell.log(&line, seat.now_ms);
                    }
                }
                7 => seat.shell.turn(seat.now_ms),
                8 => seat.send(random.below(600)),
                _ if running => {
                    seat.shell.progress("1 of 2", seat.now_ms);
                    let _ = seat.shell.reply(b"some\nrows\n", seat.now_ms);
                    if random.below(3) == 0 {
                        seat.shell.done(0, seat.now_ms);
                    }
                }
                _ => seat.send(usize::MAX),
            }
            while let Some(action) = seat.shell.next_action() {
                running |= matches!(action, Action::Run | Action::Own(_));
                closed |= action == Action::Close;
            }
            if closed {
                break;
            }
            running &= seat.shell.state == State::Running;
            if seat.shell.output().is_empty() {
                seat.check();
            }
        }
        seat.send(usize::MAX);
        seat.check();
        // Each line of the log is there in one piece, or was told of as left out, or still will be.
        let rows = &seat.terminal.above;
        let shown = rows.iter().filter(|row| row.starts_with("warn: ")).count() as u64;
        let told = rows
            .iter()
            .filter_map(|row| row.strip_prefix('(')?.split_once(" lines of the log")?.0.parse::<u64>().ok());
        assert_eq!(shown + told.sum::<u64>() + seat.shell.screen().left_out(), logged, "seed {seed}");
        assert!(mode != Mode::Dumb || seat.terminal.unknown == 0);
    }
}
