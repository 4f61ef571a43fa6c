//! What it means when no answer came, or one that does not fit the question.
//!
//! Source: ours; ureq's errors.

use std::io;

use rustls::{AlertDescription as Alert, CertificateError};
use ureq::Timeout;

use crate::store::{StoreFault, StoreFaultKind};

/// Whether an error means that nothing was sent: another server may be asked the same.
pub(in crate::store) fn was_not_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(phase) => matches!(phase, Timeout::Resolve | Timeout::Connect),
        ureq::Error::Io(e) => matches!(
            e.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        ),
        _ => false,
    }
}

/// No answer came from `authority` (`host:port`). Whether the request was applied is open, unless it cannot have left this machine.
pub(in crate::store) fn transport_fault(
    verb: &str,
    key: &str,
    authority: &str,
    error: &ureq::Error,
) -> StoreFault {
    let tls = match error {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(e) => e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    let (kind, why) = match (error, tls) {
        // Another certificate will not come by repeating, and nothing was sent.
        (_, Some(e @ rustls::Error::InvalidCertificate(why))) => {
            let is_other_ca = matches!(why, CertificateError::UnknownIssuer | CertificateError::BadSignature);
            let why = match is_other_ca {
                true => "it is of another CA than those that are trusted here".to_owned(),
                false => e.to_string(),
            };
            (
                StoreFaultKind::Rejected,
                format!("the certificate of {authority} is not accepted: {why}; give its CA file"),
            )
        }
        (_, Some(rustls::Error::AlertReceived(alert @ (Alert::UnknownCA | Alert::DecryptError)))) => (
            StoreFaultKind::Unknown,
            format!(
                "{authority} does not accept this machine's certificate ({alert:?}): it is of another CA"
            ),
        ),
        (_, Some(e)) => (StoreFaultKind::Unknown, format!("TLS with {authority} fails: {e}")),
        (ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_), _) => {
            // Not in the error's own words: a URL may have a signature in it.
            (StoreFaultKind::Rejected, format!("no request to {authority} can be made of this"))
        }
        _ => (StoreFaultKind::Unknown, unanswered(authority, error)),
    };
    StoreFault::new(kind, verb, key, why)
}

/// Why no answer came, in a few words for people.
fn unanswered(authority: &str, error: &ureq::Error) -> String {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let no_way = |why: String| format!("cannot reach the store: {why}");
    match error {
        ureq::Error::HostNotFound => no_way(format!("host name {host} not found")),
        ureq::Error::ConnectionFailed => no_way(format!("{authority} accepts no connection")),
        ureq::Error::Timeout(Timeout::Resolve) => {
            no_way(format!("no name server told the address of {host} in time"))
        }
        ureq::Error::Timeout(Timeout::Connect) => {
            no_way(format!("{authority} accepts no connection in time"))
        }
        ureq::Error::Timeout(_) => format!("{authority} gave no answer in time ({error})"),
        ureq::Error::Io(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused => no_way(format!("connection refused by {authority}")),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                no_way(format!("no route to {authority}"))
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => format!("{authority} closed the connection before it answered"),
            // The resolver's failures have no kind of their own.
            _ if e.to_string().starts_with("failed to lookup address") => {
                no_way(format!("host name {host} not found"))
            }
            _ => format!("the connection to {authority} failed: {e}"),
        },
        _ => error.to_string(),
    }
}

/// An answer that is none.
pub(in crate::store) fn unfit(verb: &str, key: &str, why: &str) -> StoreFault {
    let detail = format!("the answer does not fit the question: {why}");
    StoreFault::new(StoreFaultKind::Unknown, verb, key, detail)
}
