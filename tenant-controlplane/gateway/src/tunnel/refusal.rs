//! A CONNECT that is refused: a status, and a reason for people.
//!
//! kube-apiserver passes the reason phrase of its proxy on to kubectl's user and throws the body away, so the phrase is
//! the message. It may come from an agent: it is cut to what a status line may hold.

/// Characters of a reason phrase, at most.
const LONGEST: usize = 200;

/// What a CONNECT is answered with in place of 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// 400..=599.
    pub(crate) status: u16,
    /// One line for people, printable ASCII.
    pub(crate) reason: String,
}

impl Refusal {
    /// A refusal; the reason is cut to one printable line.
    pub(crate) fn new(status: u16, reason: impl AsRef<str>) -> Self {
        let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        Self { status, reason: reason.as_ref().chars().take(LONGEST).map(printable).collect() }
    }

    /// The whole HTTP/1.1 response.
    pub(crate) fn response(&self) -> String {
        format!("HTTP/1.1 {} {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.status, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_cannot_leave_its_line() {
        let refusal = Refusal::new(502, "a\r\nSet-Cookie: x\u{e9}\0b");
        assert_eq!(refusal.reason, "a??Set-Cookie: x??b");
        assert_eq!(Refusal::new(502, "x".repeat(1000)).reason.len(), LONGEST);
    }

    #[test]
    fn the_reason_is_the_phrase() {
        let text = Refusal::new(503, "node web-1 has no tunnel: agent not connected").response();
        assert!(text.starts_with("HTTP/1.1 503 node web-1 has no tunnel: agent not connected\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }
}
