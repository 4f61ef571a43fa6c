//! The screen against a model of a terminal that was written without it. Source: ours; DEC VT100 User Guide, chapter 3.

use super::*;

/// A terminal: rows that were complete, the row with the cursor, and its column.
pub(crate) struct Terminal {
    pub(crate) columns: usize,
    pub(crate) above: std::vec::Vec<std::string::String>,
    pub(crate) row: std::vec::Vec<char>,
    pub(crate) at: usize,
    /// Bytes of a sequence or a character so far.
    partial: std::vec::Vec<u8>,
    /// What a terminal without cursor motion got and cannot do.
    pub(crate) unknown: usize,
    is_dumb: bool,
}

impl Terminal {
    pub(crate) fn new(columns: usize, is_dumb: bool) -> Terminal {
        let (above, row, partial) = Default::default();
        Terminal { columns, above, row, at: 0, partial, unknown: 0, is_dumb }
    }

    pub(crate) fn text(&self) -> std::string::String {
        self.row.iter().collect::<std::string::String>().trim_end().to_owned()
    }

    fn next_row(&mut self) {
        let row = self.text();
        self.above.push(row);
        self.row.clear();
    }

    fn put(&mut self, c: char) {
        if self.at == self.columns {
            self.next_row();
            self.at = 0;
        }
        while self.row.len() <= self.at {
            self.row.push(' ');
        }
        self.row[self.at] = c;
        self.at += 1;
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.partial.push(byte);
            let so_far = self.partial.clone();
            match so_far[..] {
                [0x1b] => continue,
                [0x1b, ..] => {
                    self.unknown += usize::from(self.is_dumb);
                    if so_far.len() > 2 && byte.is_ascii_alphabetic() {
                        self.sequence(&so_far[2..]);
                    } else if !matches!(so_far[..], [_, b'7' | b'8']) {
                        continue;
                    }
                }
                [b'\r'] => self.at = 0,
                [b'\n'] => self.next_row(),
                [8] => self.at = self.at.min(self.columns - 1).saturating_sub(1),
                [7] => {}
                _ => match std::str::from_utf8(&so_far) {
                    Ok(text) => text.chars().for_each(|c| {
                        assert!(!c.is_control(), "{c:?} reaches the terminal");
                        self.put(c);
                    }),
                    Err(_) => continue,
                },
            }
            self.partial.clear();
        }
    }

    fn sequence(&mut self, sequence: &[u8]) {
        let (last, numbers) = sequence.split_last().unwrap();
        let number = std::str::from_utf8(numbers).unwrap().parse().unwrap_or(1);
        match last {
            b'K' => self.row.truncate(self.at),
            b'D' => self.at = self.at.min(self.columns - 1).saturating_sub(number),
            b'H' | b'n' => {}
            _ => panic!("{sequence:?} is no sequence of ours"),
        }
    }
}

/// Moves all bytes.
fn send(screen: &mut Screen, terminal: &mut Terminal) {
    let bytes = screen.output().to_vec();
    terminal.feed(&bytes);
    screen.sent(bytes.len());
}

#[test]
fn a_row_is_drawn_by_its_difference() {
    for mode in [Mode::Vt100, Mode::Dumb] {
        let mut screen = Screen::new(mode, (80, 24));
        let mut terminal = Terminal::new(80, mode == Mode::Dumb);
        for (text, cursor, bytes_max) in [
            ("", 0, 6),
            ("s", 1, 1),
            ("st", 2, 1),
            ("stat", 2, 4),
            ("st", 2, 4),
            ("xst", 0, 9),
            ("größe", 7, 14),
        ] {
            assert!(screen.draw("n1> ", text, cursor));
            assert!(screen.output().len() <= bytes_max, "{text}: {:?}", screen.output());
            send(&mut screen, &mut terminal);
            assert_eq!(terminal.text(), format!("n1> {text}").trim_end());
            assert_eq!(terminal.at, 4 + text[..cursor].chars().count());
        }
        assert_eq!(terminal.unknown, 0);
    }
}

#[test]
fn a_line_that_is_longer_than_the_row_is_shown_around_the_cursor() {
    for columns in [1, 20, 40, 80, 132, 400] {
        let mut screen = Screen::new(Mode::Vt100, (columns, 24));
        let mut terminal = Terminal::new(screen.size().0, false);
        let text: std::string::String = (0..1000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
        for cursor in (0..=1000).chain((0..1000).rev()) {
            assert!(screen.draw("node> ", &text, cursor));
            send(&mut screen, &mut terminal);
            assert!(terminal.above.is_empty(), "it wrapped");
            let row = terminal.text();
            let shown = row.strip_prefix("node> ").unwrap_or(&row);
            let column = terminal.at - (row.len() - shown.len());
            let from = cursor - column;
            assert!(text[from..].starts_with(shown) && shown.len() >= 10.min(text.len() - from), "{row}");
        }
    }
}

#[test]
fn log_lines_go_above_the_row_and_are_counted_when_there_are_too_many() {
    for mode in [Mode::Vt100, Mode::Dumb] {
        let mut screen = Screen::new(mode, (80, 24));
        let mut terminal = Terminal::new(80, mode == Mode::Dumb);
        screen.draw("n1> ", "sta", 3);
        for number in 0..100 {
            screen.log(&format!("warn: number {number}\x1b[2J"), 0);
            screen.draw("n1> ", "sta", 3);
            send(&mut screen, &mut terminal);
        }
        let shown = |terminal: &Terminal| {
            terminal.above.iter().filter(|row| row.starts_with("warn: number")).count() as u64
        };
        assert_eq!((shown(&terminal), screen.left_out()), (LOG_BURST, 100 - LOG_BURST));
        screen.turn(10_000);
        screen.draw("n1> ", "sta", 3);
        send(&mut screen, &mut terminal);
        assert_eq!((terminal.text().as_str(), terminal.at), ("n1> sta", 7));
        assert!(terminal.above.iter().any(|row| row.starts_with("(92 lines of the log were left out")));
        assert!(terminal.above.iter().any(|row| row == "warn: number 0?[2J"), "{:?}", terminal.above);
        assert_eq!(screen.left_out(), 0);
    }
}

#[test]
fn a_reply_stops_at_a_full_page_and_where_the_line_is_slow() {
    let mut screen = Screen::new(Mode::Vt100, (80, 24));
    let mut terminal = Terminal::new(80, false);
    let reply: std::string::String = (0..100).map(|n| format!("row {n}\n")).collect();
    screen.begin_reply();
    let taken = screen.reply(reply.as_bytes());
    assert!(screen.is_page_full() && reply[..taken].ends_with("row 22\n"));
    assert_eq!(screen.reply(&reply.as_bytes()[taken..]), 0);
    screen.turn_page(1);
    assert_eq!(screen.reply(&reply.as_bytes()[taken..]), "row 23\n".len());
    send(&mut screen, &mut terminal);
    assert_eq!(terminal.above.len(), 24);
    // A row that wraps counts as often as it does.
    screen.begin_reply();
    assert_eq!(screen.reply(&[b'x'; 80 * 30]), 80 * 23 + 1);
    send(&mut screen, &mut terminal);
    // Without pages, only the room counts.
    let mut script = Screen::new(Mode::Script, (80, 24));
    let taken = script.reply(&[b'x'; 10_000]);
    assert!((1000..OUT_BYTES).contains(&taken));
    assert_eq!(script.reply(b"x"), 0);
    script.sent(script.output().len());
    assert_eq!(script.reply(b"x"), 1);
}

#[test]
fn nothing_of_a_reply_drives_the_terminal() {
    let mut screen = Screen::new(Mode::Vt100, (80, 24));
    let mut terminal = Terminal::new(80, false);
    screen.begin_reply();
    let bad = b"a\x1b[2J\x07\x9b\xc2\x9bm\xe2\x80\xae\xe2\x82\tb\xff";
    for part in bad.chunks(1) {
        assert_eq!(screen.reply(part), 1);
    }
    assert!(screen.end_reply_row());
    send(&mut screen, &mut terminal);
    assert_eq!(terminal.above, ["a?[2J???m??     b?"]);
}
