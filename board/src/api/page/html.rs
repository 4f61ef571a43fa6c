//! HTML as text: what is given as text is escaped, what is raw is this program's own.
//!
//! Does not: know what a page says. Source: HTML Living Standard.

use windlass_agent::foreign;

/// How often a page asks for itself again, in seconds.
const REFRESH_SECS: u32 = 10;

/// How something is, as a colour; the word beside it says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Look at it soon.
    Warn,
    /// Look at it now.
    Bad,
    /// Neither.
    None,
}

impl Tone {
    /// Its class in the style.
    pub fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
            Tone::None => "none",
        }
    }
}

/// A page that is being written.
pub struct Html {
    out: String,
    heads: Vec<&'static str>,
    column: usize,
    rows: usize,
}

impl Html {
    /// Begins a page; `up` leads to the first page.
    pub fn begin(title: &str, up: &str, name: &str, node: u32) -> Html {
        let mut page = Html { out: String::with_capacity(16 << 10), heads: Vec::new(), column: 0, rows: 0 };
        page.raw("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        page.raw(&format!("<meta http-equiv=\"refresh\" content=\"{REFRESH_SECS}\">"));
        page.raw(&format!("<link rel=\"stylesheet\" href=\"{up}style.css\"><title>"));
        page.text(&format!("{title} - Windlass {name}"));
        page.raw("</title></head><body><header><h1>");
        if up.is_empty() {
            page.text("Windlass");
        } else {
            page.raw(&format!("<a href=\"{up}\">Windlass</a>"));
        }
        page.raw("</h1><span class=\"faint\">");
        page.text(&format!("node {node}, {name}"));
        page.raw("</span></header><main>");
        page
    }

    /// Ends it.
    pub fn end(mut self) -> String {
        self.raw("</main><footer class=\"faint\">");
        self.text(&format!("windlass {}", env!("CARGO_PKG_VERSION")));
        self.raw("</footer></body></html>\n");
        self.out
    }

    /// Adds this program's own text as it is.
    pub fn raw(&mut self, html: &str) {
        self.out.push_str(html);
    }

    /// Adds text of others.
    pub fn text(&mut self, text: &str) {
        for c in foreign::harmless(text).chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c => self.out.push(c),
            }
        }
    }

    /// Begins a part of the page.
    pub fn section(&mut self, title: &str) {
        self.raw("<section><h2>");
        self.text(title);
        self.raw("</h2>");
    }

    /// Ends it.
    pub fn end_section(&mut self) {
        self.raw("</section>");
    }

    /// A pair of a list of pairs.
    pub fn pair(&mut self, name: &str, value: &str) {
        self.raw("<dt>");
        self.text(name);
        self.raw("</dt><dd>");
        self.text(value);
        self.raw("</dd>");
    }

    /// Begins a table; a head that begins with `>` is of numbers.
    pub fn table(&mut self, heads: &[&'static str]) {
        (self.heads, self.rows) = (heads.to_vec(), 0);
        self.raw("<div class=\"scroll\"><table class=\"stack\"><thead><tr>");
        for head in heads {
            let of_numbers = head.strip_prefix('>');
            self.raw(if of_numbers.is_some() {
                "<th scope=\"col\" class=\"number\">"
            } else {
                "<th scope=\"col\">"
            });
            self.text(of_numbers.unwrap_or(head));
            self.raw("</th>");
        }
        self.raw("</tr></thead><tbody>");
    }

    /// Ends it; `empty` is said where it has no row.
    pub fn end_table(&mut self, empty: &str) {
        self.raw("</tbody></table></div>");
        if self.rows == 0 {
            self.raw("<p class=\"faint\">");
            self.text(empty);
            self.raw("</p>");
        }
    }

    /// Begins a row.
    pub fn row(&mut self) {
        self.rows += 1;
        self.column = 0;
        self.raw("<tr>");
    }

    /// Ends it.
    pub fn end_row(&mut self) {
        self.raw("</tr>");
    }

    fn open_cell(&mut self, class: &str) {
        let head = self.heads.get(self.column).copied().unwrap_or_default().trim_start_matches('>');
        self.column += 1;
        self.raw(&format!("<td{class} data-of=\"{head}\"><span>"));
    }

    fn close_cell(&mut self) {
        self.raw("</span></td>");
    }

    /// A cell of text.
    pub fn cell(&mut self, text: &str) {
        self.open_cell("");
        self.text(text);
        self.close_cell();
    }

    /// A cell of a number.
    pub fn number_cell(&mut self, text: &str) {
        self.open_cell(" class=\"number\"");
        self.text(text);
        self.close_cell();
    }

    /// A cell with a link; names of policies need no percent signs.
    pub fn link_cell(&mut self, to: &str, text: &str) {
        self.open_cell("");
        self.raw("<a href=\"");
        self.text(to);
        self.raw("\">");
        self.text(text);
        self.raw("</a>");
        self.close_cell();
    }

    /// A cell with a state.
    pub fn pill_cell(&mut self, tone: Tone, text: &str) {
        self.open_cell("");
        self.pill(tone, text);
        self.close_cell();
    }

    /// A cell with reasons.
    pub fn pills_cell(&mut self, texts: impl Iterator<Item = String>) {
        self.open_cell("");
        texts.for_each(|text| self.pill(Tone::None, &text));
        self.close_cell();
    }

    fn pill(&mut self, tone: Tone, text: &str) {
        self.raw(&format!("<span class=\"pill {}\">", tone.class()));
        self.text(text);
        self.raw("</span>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_no_html() {
        let mut page = Html::begin("<b>", "", "\"n'&", 1);
        page.table(&["A"]);
        page.row();
        page.link_cell("policies/x\" onclick=\"y", "<script>\x1b[2J");
        page.end_row();
        page.end_table("none");
        let text = page.end();
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains("\" onclick"), "{text}");
        assert!(!text.contains('\x1b') && !text.contains("none"), "{text}");
    }
}
