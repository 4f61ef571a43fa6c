//! A CA of a test's own, and a certificate of 127.0.0.1 that serves servers and clients. Made by openssl.

use std::process::Command;

use super::scratch::Scratch;

/// Makes a CA (`ca.pem`) and a certificate for 127.0.0.1 (`cert.pem`, `key.pem`) in the current directory.
const MAKE_CERTIFICATES: &str = "set -e
ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $ec -days 2 -subj /CN=windlass-test-ca -keyout ca.key -out ca.pem -addext keyUsage=keyCertSign
openssl req $ec -subj /CN=localhost -keyout key.pem -out request.pem
printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem";

/// A directory with `ca.pem`, `cert.pem` and `key.pem`.
///
/// # Errors
/// The reason, for a skip.
pub fn certificates() -> Result<Scratch, String> {
    let directory = Scratch::new("certificates");
    let made = Command::new("bash")
        .args(["-c", MAKE_CERTIFICATES])
        .current_dir(directory.path())
        .output()
        .map_err(|e| e.to_string())?;
    if !made.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(directory)
}
