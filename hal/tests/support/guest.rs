//! A guest: a kernel that may hang, crash and lose power without harm, and without privilege. What it does is in guest.py; here it is
//! found, fetched (`apt-get download`, unpacked and not installed) and started, with a time limit.
//!
//! | machine | kernel | its root | folder of images |
//! |---|---|---|---|
//! | user mode | user-mode-linux (6.1), which does not run on processors with AMX registers | the host's, by hostfs | the host's, by hostfs |
//! | emulated | Debian's cloud kernel (6.12) under qemu, without /dev/kvm, on any processor; some seven times slower | an ext4 image with Python in it | an ext4 image, filled before and emptied behind |
//!
//! The first that boots is taken; `WINDLASS_GUEST=emulated` or `=user-mode` asks for one. Each is booted once per process before it is used: a
//! guest that cannot boot is no outcome of a test, but a reason to skip it.
//!
//! Source: ours; qemu-system-x86_64(1), mke2fs(8) `-d`, debugfs(8) `dump`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{Scratch, TOOL_DIRS, has, run, skipped};

/// What the guest prints first: proof that kernel, root and Python work.
const UP: &str = "guest: up";
/// Seconds for the boot that tries a guest out; some five are needed.
const TRIAL_SECONDS: u32 = 60;
/// An emulated processor takes this many times as long.
const EMULATED_SLOWER: u32 = 4;
/// Folder of scripts beside the images.
const SUPPORT: &str = ".support";
/// Modules that the emulated guest loads, in the order of their needs.
const MODULES: [&str; 6] = ["virtio_blk", "loop", "libcrc32c", "xfs", "quota_tree", "quota_v2"];
/// Programs that populate.py calls.
const PROGRAMS: [&str; 4] = ["sh", "find", "head", "tar"];
/// Ordinary files that populate.py finds below /usr/share.
const FILES: u32 = 1000;

/// A kernel to boot.
pub enum Guest {
    /// Under qemu.
    Emulated(Emulated),
    /// As a process.
    UserMode(UserMode),
}

/// What qemu boots.
pub struct Emulated {
    kernel: PathBuf,
    initrd: PathBuf,
    root: PathBuf,
}

/// The kernel and its modules.
pub struct UserMode {
    kernel: PathBuf,
    modules: PathBuf,
}

/// Where fetched packages stay from run to run.
pub fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

impl Guest {
    /// The first that boots here, found once per process. `Err` says why there is none.
    fn find(newest: bool) -> Result<&'static Guest, String> {
        static EMULATED: OnceLock<Result<Guest, String>> = OnceLock::new();
        static USER_MODE: OnceLock<Result<Guest, String>> = OnceLock::new();
        let emulated = || EMULATED.get_or_init(|| Guest::Emulated(Emulated::find()?).tried());
        let user_mode = || USER_MODE.get_or_init(|| Guest::UserMode(UserMode::find()?).tried());
        let wanted = std::env::var("WINDLASS_GUEST").unwrap_or_default();
        let mut reasons = String::from("no guest boots");
        for (name, ask) in [("user-mode", !newest), ("emulated", true)] {
            if !ask || !newest && !wanted.is_empty() && wanted != name {
                continue;
            }
            match if name == "emulated" { emulated() } else { user_mode() } {
                Ok(guest) => return Ok(guest),
                Err(reason) => write!(reasons, "; {name}: {reason}").unwrap(),
            }
        }
        Err(reasons)
    }

    /// It, once it has booted.
    fn tried(self) -> Result<Guest, String> {
        let scratch = Scratch::new("guest-trial");
        let said = self.boot(&scratch.0, "", &[], TRIAL_SECONDS);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        if said.contains(UP) { Ok(self) } else { Err(format!("does not boot: {last}")) }
    }

    /// The one with the newest kernel, for what others do not know; else as [`or_skip`](Guest::or_skip).
    pub fn newest_or_skip(test: &str, programs: &[&str]) -> Option<&'static Guest> {
        Guest::found(test, programs, true)
    }

    /// One that boots, when these programs are here too; or nothing, said aloud.
    pub fn or_skip(test: &str, programs: &[&str]) -> Option<&'static Guest> {
        Guest::found(test, programs, false)
    }

    fn found(test: &str, programs: &[&str], newest: bool) -> Option<&'static Guest> {
        if let Some(program) = programs.iter().find(|program| !has(program)) {
            skipped(test, &format!("no {program}"));
            return None;
        }
        Guest::find(newest).map_err(|reason| skipped(test, &reason)).ok()
    }

    /// Whether it is the one with the newest kernel.
    pub fn is_newest(&self) -> bool {
        matches!(self, Guest::Emulated(_))
    }

    /// Runs the job lines (see guest.py) on the images in `work`, at most `seconds` long, more on an emulated processor; `disks` are its
    /// disks 0, 1, ... Returns what the guest printed; whether it finished shows in what it wrote.
    pub fn boot(&self, work: &Path, job: &str, disks: &[PathBuf], seconds: u32) -> String {
        fs::write(work.join("job"), job).unwrap();
        // A kernel's command line takes no path with spaces, as the checkout's may be; and a guest does not see the host's /dev/shm.
        let own = format!("windlass-{}-{}", std::process::id(), work.file_name().unwrap().to_string_lossy());
        let own = Scratch(std::env::temp_dir().join(own));
        fs::create_dir_all(&own.0).unwrap();
        let said = match self {
            Guest::Emulated(machine) => machine.boot(work, &own.0, job, disks, seconds * EMULATED_SLOWER),
            Guest::UserMode(machine) => machine.boot(work, &own.0, disks, seconds),
        };
        // For whoever looks into a difference.
        let _ = fs::write(kept().join("guest.log"), &said);
        said
    }
}

/// Writes the guest's scripts: what they need of this folder into `folder`, which the guest finds at /mnt/given, and `init.py` into `dir`, with
/// the variables that guest.py names.
fn write_scripts(dir: &Path, folder: &Path, variables: &[(&str, &str)], disks: &[String]) -> PathBuf {
    let given = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let support = folder.join(SUPPORT);
    fs::create_dir_all(&support).unwrap();
    for script in ["oracle.py", "populate.py", "storm.py"] {
        fs::copy(given.join(script), support.join(script)).unwrap();
    }
    let mut text = format!("#!/usr/bin/python3 -B\nSUPPORT = \"/mnt/given/{SUPPORT}\"\nDISKS = {disks:?}\n");
    for (name, value) in variables {
        writeln!(text, "{name} = {value:?}").unwrap();
    }
    text += &fs::read_to_string(given.join("guest.py")).unwrap();
    let init = dir.join("init.py");
    fs::write(&init, text).unwrap();
    fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    init
}

/// Runs a guest to its end or to the end of its time; what it printed.
fn run_guest(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command that ends after so many seconds.
fn limited(seconds: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &seconds.to_string()]).arg(program);
    command
}

/// Makes a thing that stays from run to run, once: another test may be at it, so each makes its own, and the first to finish wins.
fn make_once(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let made = kept().join(name);
    if !made.exists() {
        let scratch = Scratch(kept().join(format!("{name}-{}", std::process::id())));
        fs::create_dir_all(&scratch.0).map_err(|error| error.to_string())?;
        make(&scratch.0)?;
        let _ = fs::rename(scratch.0.join("made"), &made);
    }
    if made.exists() { Ok(made) } else { Err(format!("{} was not made", made.display())) }
}

impl Emulated {
    fn find() -> Result<Emulated, String> {
        let programs = ["qemu-system-x86_64", "busybox", "mke2fs", "debugfs", "xz", "python3"];
        if let Some(program) = programs.iter().find(|program| !has(program)) {
            return Err(format!("no {program}"));
        }
        let kernel = make_once("guest-kernel", |dir| {
            // The package is named after its version; the one that stands for the newest depends on it.
            shell(
                dir,
                "name=$(apt-cache depends --important linux-image-6.12-cloud-amd64 linux-image-cloud-amd64 | sed -n 's,.*Depends: ,,p' | grep -m1 '^linux-image-[0-9].*-cloud-amd64$') \
                 && apt-get -qq download \"$name\" && dpkg -x \"$name\"_*.deb made",
            )
        })?;
        let modules: String = MODULES.join(" ");
        let initrd = make_once("guest-initrd", |dir| {
            fs::write(dir.join("init"), INIT).map_err(|error| error.to_string())?;
            let kernel = kernel.display();
            shell(
                dir,
                &format!(
                    "mkdir -p root/bin root/m root/new root/dev && cp \"$(command -v busybox)\" root/bin/busybox && cp init root/init && chmod +x root/init && n=10 \
                     && for name in {modules}; do file=$(find '{kernel}/lib/modules' -name $name.ko.xz); [ -z \"$file\" ] || xz -dc \"$file\" > root/m/$n-$name; n=$((n+1)); done \
                     && (cd root && find . | busybox cpio -o -H newc > ../made)"
                ),
            )
        })?;
        let root = make_once("guest-root", |dir| {
            let programs = PROGRAMS.join(" ");
            shell(
                dir,
                &format!(
                    "mkdir -p root/usr/bin root/usr/lib root/usr/lib64 root/usr/share root/proc root/dev root/mnt root/tmp root/sys && for at in bin lib lib64; do ln -s usr/$at root/$at; done \
                     && python=$(readlink -f /usr/bin/python3) && name=$(basename $python) && cp $python root/usr/bin/python3 \
                     && (cd /usr/lib && tar cf - --exclude=__pycache__ --exclude=test --exclude='config-*' --exclude=dist-packages $name) | tar xf - -C root/usr/lib \
                     && for program in {programs}; do cp -L \"$(command -v $program)\" root/usr/bin/; done \
                     && for file in $(ldd root/usr/bin/* root/usr/lib/$name/lib-dynload/*.so | grep -o '/[^ :]*' | sort -u); do case $file in */root/*) ;; *) \
                        mkdir -p root/usr/$(dirname ${{file#/usr}}) && cp -L $file root/usr/${{file#/usr}};; esac; done \
                     && (cd /usr/share && find . -xdev -type f -size -100k | head -{FILES} | tar cf - -T -) | tar xf - -C root/usr/share \
                     && truncate -s 400M made && mke2fs -q -F -t ext4 -O ^has_journal -d root made"
                ),
            )
        })?;
        let images = shell_out(&kernel, "ls \"$PWD\"/boot/vmlinuz-*")?;
        Ok(Emulated { kernel: PathBuf::from(images.trim()), initrd, root })
    }

    fn boot(&self, work: &Path, own: &Path, job: &str, disks: &[PathBuf], seconds: u32) -> String {
        // Behind the root and the folder.
        let names: Vec<String> =
            (0..disks.len()).map(|n| format!("vd{}", (b'c' + n as u8) as char)).collect();
        let (folder, image) = (own.join("folder"), own.join("folder.img"));
        fs::create_dir(&folder).unwrap();
        let slower = EMULATED_SLOWER.to_string();
        write_scripts(&folder, &folder, &[("WORK", ""), ("MODULES", ""), ("SLOWER", &slower)], &names);
        let files: Vec<&str> = std::iter::once("job").chain(images(job).map(|(name, _)| name)).collect();
        for name in &files {
            let copied = Command::new("cp").arg("--sparse=always").arg(work.join(name)).arg(&folder).status();
            assert!(copied.unwrap().success(), "{name}");
        }
        let bytes: u64 = files.iter().map(|name| work.join(name).metadata().map_or(0, |m| m.len())).sum();
        fs::File::create(&image).unwrap().set_len(bytes + bytes / 8 + (64 << 20)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        run(
            "mke2fs",
            &[
                "-q",
                "-F",
                "-t",
                "ext4",
                "-O",
                "^has_journal",
                "-N",
                "4096",
                "-d",
                &text(&folder),
                &text(&image),
            ],
        );
        let mut command = limited(seconds, "qemu-system-x86_64");
        command.args([
            "-M",
            "pc",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "768",
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
        ]);
        command.args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        let mut drive = |path: &Path, more: &str| {
            command
                .arg("-drive")
                .arg(format!("file={},if=virtio,format=raw,cache=unsafe{more}", path.display()));
        };
        drive(&self.root, ",readonly=on");
        drive(&image, "");
        disks.iter().for_each(|disk| drive(disk, ""));
        let said = run_guest(&mut command);
        // Back: what was written, and images that were changed.
        let mut dump = String::new();
        for (name, changed) in images(job) {
            for suffix in [".list", ".said", if changed { "" } else { ".list" }] {
                let to = work.join(format!("{name}{suffix}"));
                writeln!(dump, "dump \"/{name}{suffix}\" \"{}\"", to.display()).unwrap();
            }
        }
        fs::write(own.join("dump"), dump).unwrap();
        let _ = shell_out(own, "debugfs -f dump folder.img 2>&1");
        said
    }
}

/// First process of the emulated guest.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /m/*; do /bin/busybox insmod $module; done
/bin/busybox mount -t ext4 -o ro /dev/vda /new
/bin/busybox mount -t devtmpfs dev /new/dev
/bin/busybox mount -t tmpfs tmpfs /new/mnt
/bin/busybox mkdir /new/mnt/given
/bin/busybox mount -t ext4 /dev/vdb /new/mnt/given
exec /bin/busybox switch_root /new /usr/bin/python3 -B /mnt/given/init.py
";

/// Images that a job names, and whether it changes them.
fn images(job: &str) -> impl Iterator<Item = (&str, bool)> {
    job.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?) {
            ("walk", name) => Some((name, false)),
            ("replay" | "fill", name) => Some((name, true)),
            _ => None,
        }
    })
}

impl UserMode {
    /// The installed one, or one fetched now.
    fn find() -> Result<UserMode, String> {
        if !Path::new("/usr/bin/python3").exists() {
            return Err("no /usr/bin/python3".into());
        }
        let at = |root: &Path| {
            let kernel = root.join("usr/bin/linux.uml");
            let modules = root.join("usr/lib/uml/modules");
            (kernel.exists() && modules.exists()).then_some(UserMode { kernel, modules })
        };
        if let Some(installed) = at(Path::new("/")) {
            return Ok(installed);
        }
        let fetched = make_once("user-mode-linux", |dir| {
            shell(dir, "apt-get -qq download user-mode-linux && dpkg -x user-mode-linux_*.deb made")
        })?;
        at(&fetched).ok_or("the package user-mode-linux holds no linux.uml".into())
    }

    fn boot(&self, work: &Path, own: &Path, disks: &[PathBuf], seconds: u32) -> String {
        let names: Vec<String> =
            (0..disks.len()).map(|n| format!("ubd{}", (b'a' + n as u8) as char)).collect();
        let variables =
            [("WORK", work.to_str().unwrap()), ("MODULES", self.modules.to_str().unwrap()), ("SLOWER", "1")];
        let init = write_scripts(own, work, &variables, &names);
        let mut command = limited(seconds, &self.kernel);
        command.args(["mem=640M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "con=null"]);
        command.args(["con0=null,fd:1", "quiet", "panic=1"]).arg(format!("init={}", init.display()));
        for (n, disk) in disks.iter().enumerate() {
            command.arg(format!("ubd{n}={}", disk.display()));
        }
        let memory = Path::new("/dev/shm");
        let tmp = if memory.is_dir() { memory } else { Path::new("/tmp") };
        run_guest(command.env("TMPDIR", tmp).current_dir(own))
    }
}

/// What the guest listed of an image in `work` that it mounted.
///
/// # Panics
/// As [`listed`] fails; `said` is what it printed.
pub fn listing(work: &Scratch, name: &str, said: &str) -> String {
    listed(work, name).unwrap_or_else(|why| panic!("{why}: {said}"))
}

/// What the guest listed of an image in `work`.
///
/// # Errors
/// It did not finish, or refused the image.
pub fn listed(work: &Scratch, name: &str) -> Result<String, String> {
    let listing = fs::read_to_string(work.join(&format!("{name}.list"))).unwrap_or_default();
    let lines = listing.lines().count();
    match listing.lines().next() {
        Some("mounted") if listing.ends_with("end\n") => Ok(listing),
        Some("mounted") | None => Err(format!("{name}: the guest did not finish: {lines} lines listed")),
        Some(refused) => Err(format!("{name}: the guest does not mount it: {refused}")),
    }
}

/// Runs a shell line in `dir`.
///
/// # Errors
/// The line and the end of what it printed to standard error.
pub fn shell(dir: &Path, line: &str) -> Result<(), String> {
    shell_out(dir, line).map(drop)
}

/// The same, and what it printed.
fn shell_out(dir: &Path, line: &str) -> Result<String, String> {
    if !has("sh") {
        return Err("no sh".into());
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":" + &TOOL_DIRS.join(":");
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(dir)
        .env("PATH", path)
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{line}: {}", said.lines().last().unwrap_or("failed")))
        }
    }
}
