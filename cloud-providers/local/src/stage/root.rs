//! The machine's file system: an overlay over the shared tree, kernel file systems of its own, and nothing of the outside.

use std::fs;
use std::io::Write;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;
use node_linux::sysctl;

use super::devices;
use crate::error::LocalError;
use crate::machine::Spec;

const NONE: Option<&str> = None;
/// Directories of the tree on which something is mounted, or into which something is written, before the tree is `/`.
const TOUCHED: [&str; 9] = [
    "etc",
    "proc",
    "sys",
    "run",
    "tmp",
    "dev",
    "usr/local/bin",
    "var/lib/pilothouse-node",
    "var/cache/pilothouse/seed",
];

/// Builds the tree and makes it `/`.
pub fn build(spec: &Spec) -> Result<(), LocalError> {
    let root = spec.dir.join("root");
    // Slave: what the outside unmounts must go here too, or its pods could never be removed.
    set(Path::new("/"), MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
    overlay(spec, &root)?;
    TOUCHED.iter().try_for_each(|path| keep_inside(&root, path))?;
    bind(&spec.dir.join("state"), &root.join("var/lib/pilothouse-node"))?;
    resolvers(spec, &root)?;
    let seed = root.join("var/cache/pilothouse/seed");
    let isolated = spec.users.is_some();
    // What the outside mounted read-only stays so for a user namespace.
    if isolated {
        bind(&spec.seed, &seed)?
    } else {
        shown(spec, &seed)?
    }
    // The agent is one of the parts.
    let agent = spec.agent.file_name().map(|name| seed.join(name)).filter(|agent| agent.exists());
    bind_file(agent.as_deref().unwrap_or(&spec.agent), &root.join("usr/local/bin/pilothouse-node"))?;
    for (kind, target) in [("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "run"), ("tmpfs", "tmp")] {
        let data = if kind == "tmpfs" { Some("mode=0755") } else { NONE };
        attach(kind, &root.join(target), MsFlags::empty(), data)?;
    }
    devices::build(&root, isolated)?;
    cgroups(&root)?;
    read_only(&root.join("sys"))?;
    kernel_values(&root)?;
    enter(&root)
}

/// Makes every step of a path below `root` a directory. Whoever was root in the machine may have left a link there, which would lead the
/// mounts of its next start out of its tree. Nothing of it runs now.
fn keep_inside(root: &Path, path: &str) -> Result<(), LocalError> {
    let mut step = root.to_path_buf();
    for name in Path::new(path) {
        step.push(name);
        match fs::symlink_metadata(&step) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => fs::remove_file(&step).map_err(LocalError::file(&step))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(LocalError::file(step)(error)),
        }
        fs::create_dir(&step).map_err(LocalError::file(&step))?;
    }
    Ok(())
}

fn overlay(spec: &Spec, root: &Path) -> Result<(), LocalError> {
    // Attributes of `trusted` are not a user namespace's to write.
    let attributes = if spec.users.is_some() { ",userxattr" } else { "" };
    let data = format!(
        "lowerdir={},upperdir={},workdir={}{attributes}",
        spec.lower.display(),
        spec.dir.join("upper").display(),
        spec.dir.join("work").display()
    );
    attach("overlay", root, MsFlags::empty(), Some(&data))
}

/// Gives the machine the resolvers that were written down for it, in a file that is new: what stood there may have been a link.
fn resolvers(spec: &Spec, root: &Path) -> Result<(), LocalError> {
    let file = root.join("etc/resolv.conf");
    let text = fs::read(spec.resolvers()).map_err(LocalError::file(spec.resolvers()))?;
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(LocalError::file(file)(error)),
        _ => {}
    }
    let made = fs::File::create_new(&file).and_then(|mut new| new.write_all(&text));
    made.map_err(LocalError::file(file))
}

/// Shows the parts through an overlay without an upper layer: root in the machine may mount it again as it likes, and still cannot write
/// to what every machine and the platform itself run.
fn shown(spec: &Spec, target: &Path) -> Result<(), LocalError> {
    let none = spec.dir.join("none");
    fs::create_dir_all(&none).map_err(LocalError::file(&none))?;
    let data = format!("lowerdir={}:{}", spec.seed.display(), none.display());
    attach("overlay", target, MsFlags::MS_RDONLY, Some(&data))
}

/// The machine's own cgroups, writable through its cgroup namespace: v2 alone, or every hierarchy of a hybrid machine.
fn cgroups(root: &Path) -> Result<(), LocalError> {
    let target = root.join("sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").map_err(LocalError::file("/proc/self/cgroup"))?;
    if Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        return attach("cgroup2", &target, MsFlags::empty(), NONE);
    }
    attach("tmpfs", &target, MsFlags::empty(), Some("mode=0755"))?;
    for line in own.lines() {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        let (kind, name, data) = match controllers {
            "" => ("cgroup2", "unified", None),
            "name=systemd" => ("cgroup", "systemd", Some("none,name=systemd")),
            other => ("cgroup", other, Some(other)),
        };
        let dir = target.join(name);
        fs::create_dir_all(&dir).map_err(LocalError::file(&dir))?;
        attach(kind, &dir, MsFlags::empty(), data)?;
    }
    Ok(())
}

/// `/proc/sys` becomes read-only but for the network's part, which is the machine's own. What kubelet insists on (its
/// `protectKernelDefaults` set) is shown as files that already say so, because the real ones are the whole machine's.
fn kernel_values(root: &Path) -> Result<(), LocalError> {
    let sys = root.join("proc/sys");
    let values = root.join("run/.sysctl");
    fs::create_dir_all(&values).map_err(LocalError::file(&values))?;
    bind(&sys, &sys)?;
    bind(&sys.join("net"), &sys.join("net"))?;
    for (index, sysctl) in sysctl::KUBELET.iter().enumerate() {
        let file = values.join(index.to_string());
        fs::write(&file, format!("{}\n", sysctl.value)).map_err(LocalError::file(&file))?;
        bind(&file, &sys.join(sysctl.name))?;
    }
    read_only(&sys)
}

fn enter(root: &Path) -> Result<(), LocalError> {
    let netns = root.join("run/netns");
    fs::create_dir_all(&netns).map_err(LocalError::file(&netns))?;
    bind(&netns, &netns)?;
    set(&netns, MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    // Without a place for the old root: it comes to lie on the new one, is what `.` means then, and is taken off (pivot_root(2), "NOTES").
    std::env::set_current_dir(root).map_err(LocalError::file(root))?;
    pivot_root(".", ".").map_err(LocalError::call("change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(LocalError::call("leave the old root"))?;
    std::env::set_current_dir("/").map_err(LocalError::file("/"))?;
    // Shared, so that mounts made for pods appear in containers that ask for it (bidirectional propagation).
    set(Path::new("/"), MsFlags::MS_SHARED | MsFlags::MS_REC)
}

/// Mounts a new file system, making its mount point.
pub fn attach(kind: &str, target: &Path, flags: MsFlags, data: Option<&str>) -> Result<(), LocalError> {
    fs::create_dir_all(target).map_err(LocalError::file(target))?;
    mount(Some(kind), target, Some(kind), flags, data)
        .map_err(LocalError::call(format!("mount {kind} on {}", target.display())))
}

/// Shows a file or directory at a second place, which must exist or be a directory.
pub fn bind(source: &Path, target: &Path) -> Result<(), LocalError> {
    if source.is_dir() {
        fs::create_dir_all(target).map_err(LocalError::file(target))?;
    }
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(LocalError::call(format!("bind {}", target.display())))
}

fn bind_file(source: &Path, target: &Path) -> Result<(), LocalError> {
    if !fs::symlink_metadata(target).is_ok_and(|found| found.is_file()) {
        let parent = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(LocalError::file(parent))?;
        // A link, or nothing; a directory is left, and the machine does not start.
        fs::remove_file(target).ok();
        fs::File::create_new(target).map_err(LocalError::file(target))?;
    }
    bind(source, target)?;
    read_only(target)
}

fn read_only(target: &Path) -> Result<(), LocalError> {
    // What the mount forbids already must be said again: in a user namespace nobody may allow it.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | forbidden(target)?;
    mount(NONE, target, NONE, flags, NONE).map_err(LocalError::call(format!("protect {}", target.display())))
}

fn forbidden(target: &Path) -> Result<MsFlags, LocalError> {
    let now = statvfs(target).map_err(LocalError::call(format!("look at {}", target.display())))?.flags();
    let same = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    Ok(same.into_iter().filter(|(held, _)| now.contains(*held)).map(|(_, flag)| flag).collect())
}

/// Sets how mounts travel between mount namespaces.
pub fn set(target: &Path, propagation: MsFlags) -> Result<(), LocalError> {
    mount(NONE, target, NONE, propagation, NONE)
        .map_err(LocalError::call(format!("set the propagation of {}", target.display())))
}
