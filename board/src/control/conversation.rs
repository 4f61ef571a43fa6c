//! One client's side of the server, without I/O.
//!
//! ```text
//!  bytes -> feed -> next_request -> (one at a time) -> answer -> output -> bytes
//! ```
//!
//! Invariants: at most one request is out; what is kept of the input is [`LINE_BYTES_MAX`] bytes and one read, as long as the
//! caller feeds only while `wants_input`; what is no request is answered and ends the conversation.
//! Source: ours.

use super::wire::{Answer, LINE_BYTES_MAX, Request};

/// What one client said and is told.
#[derive(Debug, Default)]
pub struct Conversation {
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of the output that are sent.
    sent: usize,
    /// A request is out.
    asked: bool,
    /// Nothing more is taken; over when the output is sent.
    ending: bool,
}

impl Conversation {
    /// Whether bytes are wanted now: not before the last request is answered and that was sent.
    pub fn wants_input(&self) -> bool {
        !self.asked && !self.ending && self.output.is_empty() && self.input.len() <= LINE_BYTES_MAX
    }

    /// Takes bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.ending {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The client said that it says no more.
    pub fn end(&mut self) {
        self.ending = !self.asked;
        self.input.clear();
    }

    /// The next request, if there is one and the last one is answered.
    pub fn next_request(&mut self) -> Option<Request> {
        if self.asked || self.ending {
            return None;
        }
        let Some(end) = self.input.iter().position(|&byte| byte == b'\n') else {
            if self.input.len() > LINE_BYTES_MAX {
                self.refuse(&format!("a line is longer than {LINE_BYTES_MAX} bytes"));
            }
            return None;
        };
        if end > LINE_BYTES_MAX {
            self.refuse(&format!("a line is longer than {LINE_BYTES_MAX} bytes"));
            return None;
        }
        let request = Request::parse(&self.input[..end]);
        self.input.drain(..=end);
        if self.input.is_empty() {
            self.input.shrink_to(0);
        }
        match request {
            Ok(request) => {
                self.asked = true;
                Some(request)
            }
            Err(why) => {
                self.refuse(&why);
                None
            }
        }
    }

    /// Answers the request that is out.
    pub fn answer(&mut self, answer: &Answer) {
        if std::mem::take(&mut self.asked) {
            self.put(answer);
        }
    }

    /// Says why nothing more is taken.
    pub fn refuse(&mut self, why: &str) {
        self.put(&Answer::refused(why));
        self.ending = true;
        self.input = Vec::new();
    }

    fn put(&mut self, answer: &Answer) {
        self.output.extend_from_slice(answer.emit().as_bytes());
        self.output.push(b'\n');
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes of it are sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.output.len() {
            (self.output, self.sent) = (Vec::new(), 0);
        }
    }

    /// Whether a request is out.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Whether all is said.
    pub fn is_over(&self) -> bool {
        self.ending && !self.asked && self.output.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_agent::work::{Command, Reply};

    const STATUS: &[u8] = b"{\"ask\":\"status\"}\n";

    #[test]
    fn requests_come_out_whole_however_the_bytes_come_in() {
        for cut in 0..STATUS.len() {
            let mut talk = Conversation::default();
            talk.feed(&STATUS[..cut]);
            assert_eq!(talk.next_request(), None);
            talk.feed(&STATUS[cut..]);
            assert_eq!(talk.next_request(), Some(Request::Command(Command::Status)));
        }
    }

    #[test]
    fn one_request_is_out_at_a_time() {
        let mut talk = Conversation::default();
        talk.feed(&[STATUS, b"{\"ask\":\"identify\"}\n"].concat());
        assert!(talk.next_request().is_some());
        assert!(talk.next_request().is_none() && !talk.wants_input());
        let answer = Answer::Reply(Reply::Done(None));
        talk.answer(&answer);
        assert_eq!(talk.output(), format!("{}\n", answer.emit()).as_bytes());
        let half = talk.output().len() / 2;
        talk.sent(half);
        assert!(!talk.wants_input());
        let rest = talk.output().len();
        talk.sent(rest);
        assert_eq!(talk.next_request(), Some(Request::Identify));
        talk.answer(&answer);
        talk.answer(&answer);
        assert_eq!(
            talk.output().iter().filter(|&&byte| byte == b'\n').count(),
            1,
            "a late answer is dropped"
        );
    }

    #[test]
    fn what_is_no_request_or_too_long_ends_it() {
        let mut talk = Conversation::default();
        talk.feed(b"hello\n");
        talk.feed(STATUS);
        assert_eq!(talk.next_request(), None);
        assert!(talk.output().starts_with(b"{\"answer\":\"refused\"") && !talk.is_over());
        talk.sent(talk.output().len());
        assert!(talk.is_over() && !talk.wants_input());

        // The longest line is taken, a longer one is not.
        let longest = [vec![b' '; LINE_BYTES_MAX + 1 - STATUS.len()], STATUS.to_vec()].concat();
        let mut talk = Conversation::default();
        talk.feed(&longest);
        assert!(talk.next_request().is_some());
        let mut talk = Conversation::default();
        talk.feed(&[b" ".to_vec(), longest].concat());
        assert_eq!(talk.next_request(), None);
        assert!(!talk.output().is_empty());
        let mut talk = Conversation::default();
        talk.feed(&vec![b' '; LINE_BYTES_MAX]);
        assert!(talk.next_request().is_none() && talk.wants_input());
        talk.feed(b" ");
        assert!(talk.next_request().is_none() && !talk.wants_input());
    }

    #[test]
    fn a_client_that_says_no_more_still_gets_its_answer() {
        let mut talk = Conversation::default();
        talk.feed(STATUS);
        assert!(talk.next_request().is_some());
        talk.end();
        assert!(!talk.is_over());
        talk.answer(&Answer::Reply(Reply::Done(None)));
        assert!(!talk.output().is_empty());
    }
}
