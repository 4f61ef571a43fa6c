//! A user-mode-linux guest: a kernel that may hang, crash and lose power without harm, and without privilege. What it does is in
//! guest.py; here it is found, fetched (`apt-get download`, unpacked and not installed) and started, with a time limit.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Scratch, has, skipped};

/// The kernel and its modules.
pub struct Uml {
    kernel: PathBuf,
    modules: PathBuf,
}

/// Where fetched packages stay from run to run.
pub fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

impl Uml {
    /// The installed one, or one fetched now.
    ///
    /// # Errors
    /// Why there is none, to be said when the test is skipped.
    pub fn find() -> Result<Uml, String> {
        if !Path::new("/usr/bin/python3").exists() {
            return Err("no /usr/bin/python3".into());
        }
        let at = |root: &Path| {
            let kernel = root.join("usr/bin/linux.uml");
            let modules = root.join("usr/lib/uml/modules");
            (kernel.exists() && modules.exists()).then_some(Uml { kernel, modules })
        };
        let fetched = kept().join("uml");
        if let Some(uml) = at(Path::new("/")).or_else(|| at(&fetched)) {
            return Ok(uml);
        }
        // Another test may be at it: each fetches into its own folder, and the first to finish wins.
        let scratch = Scratch(kept().join(format!("uml-{}", std::process::id())));
        std::fs::create_dir_all(&scratch.0).map_err(|error| error.to_string())?;
        shell(&scratch.0, "apt-get -qq download user-mode-linux && dpkg -x user-mode-linux_*.deb root")?;
        let _ = std::fs::rename(scratch.join("root"), &fetched);
        at(&fetched).ok_or("the package user-mode-linux holds no linux.uml".into())
    }

    /// It, when these programs are here too; or nothing, said aloud.
    pub fn or_skip(test: &str, programs: &[&str]) -> Option<Uml> {
        if let Some(program) = programs.iter().find(|program| !has(program)) {
            skipped(test, &format!("no {program}"));
            return None;
        }
        Uml::find().map_err(|reason| skipped(test, &format!("no user-mode-linux: {reason}"))).ok()
    }

    /// Runs the job lines (see guest.py) on the images in `work`, at most `seconds` long. Returns what the guest printed; whether it
    /// finished shows in what it wrote.
    pub fn boot(&self, work: &Path, job: &str, disks: &[PathBuf], seconds: u32) -> String {
        // The guest sees the host's root, but not its /dev/shm: the script lies elsewhere, `work` is mounted in the guest.
        let own = format!("guest-{}-{}", std::process::id(), work.file_name().unwrap().to_string_lossy());
        let own = Scratch(kept().join(own));
        std::fs::create_dir_all(&own.0).unwrap();
        let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
        let text = format!(
            "#!/usr/bin/python3 -B\nWORK = {work:?}\nSUPPORT = {support:?}\nMODULES = {:?}\n{}",
            self.modules,
            std::fs::read_to_string(support.join("guest.py")).unwrap()
        );
        let init = own.join("init.py");
        std::fs::write(&init, text).unwrap();
        std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(work.join("job"), job).unwrap();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &seconds.to_string()]).arg(&self.kernel).args([
            "mem=640M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "con=null",
            "con0=null,fd:1",
            "quiet",
            "panic=1",
        ]);
        command.arg(format!("init={}", init.display()));
        for (n, disk) in disks.iter().enumerate() {
            command.arg(format!("ubd{n}={}", disk.display()));
        }
        let memory = Path::new("/dev/shm");
        let tmp = if memory.is_dir() { memory } else { Path::new("/tmp") };
        command.env("TMPDIR", tmp).current_dir(&own.0).stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // For whoever looks into a difference.
        let _ = std::fs::write(kept().join("guest.log"), &said);
        said
    }
}

/// What the guest listed of an image in `work` that it mounted.
///
/// # Panics
/// When it did not finish, or refused the image; `said` is what it printed.
pub fn listing(work: &Scratch, name: &str, said: &str) -> String {
    let listing = std::fs::read_to_string(work.join(&format!("{name}.list"))).unwrap_or_default();
    assert!(listing.starts_with("mounted") && listing.ends_with("end\n"), "{name}: {listing}: {said}");
    listing
}

/// Runs a shell line in `dir`.
///
/// # Errors
/// The line and the end of what it printed to standard error.
pub fn shell(dir: &Path, line: &str) -> Result<(), String> {
    if !has("sh") {
        return Err("no sh".into());
    }
    let output =
        Command::new("sh").args(["-c", line]).current_dir(dir).output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{line}: {}", said.lines().last().unwrap_or("failed")))
        }
    }
}
