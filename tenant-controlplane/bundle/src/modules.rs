//! The `modules` source: builds every program from its pinned Go module graph with the machine's Go toolchain.
//!
//! Go works in the build's own directory ([`crate::workdir`]), with caches of its own there: nobody checks what lies in Go's build
//! cache, nor modules once they are unpacked. Modules that were downloaded earlier, by us or by whoever runs this, serve as a proxy
//! does: each is compared with the pins in `go.sum`.
//!
//! An interruption costs the program at hand and what was compiled for those after it; each finished program leaves a marker named by all that went into it (module hashes, flags, toolchain).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::Sha256;
use tokio::process::Command;

use crate::build::Job;
use crate::cache::{Cache, PROGRAM, Stored, key};
use crate::catalog::{Entry, Group, Program};
use crate::command::{Step, find, output, run};
use crate::error::At;
use crate::manifest::{Artefact, Kind, arch};
use crate::workdir::{self, Workdir};
use crate::{BundleError, Progress, Result, disk, prune, trust};

const MIB: u64 = 1 << 20;
/// What the images of all programs weigh, beside the programs themselves.
const IMAGES: u64 = 520 * MIB;
/// Bumped when the way of building changes, so that earlier results are not taken for new ones.
const RECIPE: &str = "1";

/// The Go toolchain of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Go {
    exe: PathBuf,
    version: String,
    /// Where the person who runs this gets modules from (`GOPROXY`).
    proxy: String,
    /// Where theirs are kept (`GOMODCACHE`).
    modules: PathBuf,
}

impl Go {
    /// The named one, or that on `PATH`, or that in Go's own place of installation.
    pub(crate) async fn find(named: Option<&Path>) -> Result<Go> {
        let usual = Some(PathBuf::from("/usr/local/go/bin/go")).filter(|path| path.is_file());
        let exe = named.map(Path::to_owned).or_else(|| find("go")).or(usual);
        let hint = "install a Go toolchain (1.26.6 or newer) and put it on PATH".to_owned();
        let exe = exe.ok_or(BundleError::Tool { tool: "go", hint })?;
        let mut ask = Command::new(&exe);
        environment(&mut ask);
        // No `go.mod` that happens to lie here has a say; without a home there are no modules of before.
        ask.current_dir("/").args(["env", "GOVERSION", "GOPROXY", "GOMODCACHE"]);
        if std::env::var_os("HOME").is_none_or(|home| home.is_empty()) {
            ask.env("HOME", "/nonexistent");
        }
        let text = output(ask, "ask go for its version").await?;
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        let version = next().trim_start_matches("go").to_owned();
        Ok(Go { exe, version, proxy: next(), modules: next().into() })
    }

    /// Modules of earlier builds, then the person's own, then from where they get theirs.
    fn proxies(&self, cache: &Cache) -> String {
        let plain = |text: &&str| text.chars().all(|one| one.is_ascii_alphanumeric() || "/._-+@".contains(one));
        let dirs = [cache.modules(), self.modules.join("cache/download")];
        // Others would have to be written as an address is.
        let near = dirs.iter().filter_map(|dir| dir.to_str().filter(plain)).map(|dir| format!("file://{dir}"));
        let far = Some(self.proxy.clone()).filter(|proxy| !proxy.is_empty());
        near.chain(far).collect::<Vec<_>>().join(",")
    }

    fn check(&self, group: &Group) -> Result<()> {
        let needs = group.lock()?.go();
        if release(&self.version) >= release(needs) {
            return Ok(());
        }
        Err(BundleError::OldGo { found: self.version.clone(), group: group.name.clone(), needs: needs.to_owned() })
    }
}

/// Numbers of a Go version; `1.27rc1` counts as 1.27.
fn release(version: &str) -> Vec<u32> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    version.split('.').map(digits).collect()
}

/// What is there of some programs, and what is to be built.
pub(crate) struct Work<'a> {
    ready: Vec<Artefact>,
    missing: Vec<(&'a Group, &'a Program, String)>,
}

impl<'a> Work<'a> {
    /// Looks for each program in the store, by checksum.
    pub(crate) async fn look(job: &Job<'_>, go: &Go, programs: Vec<Entry<'a>>) -> Result<Work<'a>> {
        let mut work = Work { ready: Vec::new(), missing: Vec::new() };
        for (group, program) in programs {
            let key = input_key(go, group, program)?;
            match job.done(&key).await? {
                Some(stored) => work.ready.push(artefact(group, program, &stored)),
                None => work.missing.push((group, program, key)),
            }
        }
        Ok(work)
    }

    /// Whether nothing has to be built.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Everything that would otherwise fail minutes later: toolchain, C libraries, disk. `beside` is what else will be
    /// written to the cache, in bytes.
    pub(crate) async fn prepare(&self, job: &Job<'_>, go: &Go, beside: u64) -> Result<()> {
        let mut groups: Vec<&Group> = self.missing.iter().map(|(group, ..)| *group).collect();
        groups.dedup_by_key(|group| &group.name);
        let (mut cold, mut size) = (0, 0);
        for group in &groups {
            go.check(group)?;
            if group.cgo {
                c_toolchain().await?;
            }
            cold += group.cold_mib * MIB;
            size += group.size_mib * MIB;
            lay_out(job, group)?;
        }
        let images = if size > 0 && beside == 0 { IMAGES } else { 0 };
        let wants = [(job.cache.dir().to_owned(), size + images + beside), (job.opts.build_dir.clone(), cold)];
        disk::check(&wants, &job.opts.free_space, job.report)
    }

    /// Tells the build's estimate what is missing.
    pub(crate) fn announce(&self, job: &Job<'_>) {
        job.estimate.plan_builds(self.missing.iter().map(|(_, program, _)| program.name.as_str()));
    }

    /// Builds what is missing.
    pub(crate) async fn make(mut self, job: &Job<'_>, go: &Go) -> Result<Vec<Artefact>> {
        self.ready.iter().for_each(|part| job.cached(part));
        for (group, program, key) in self.missing {
            let stored = one(job, go, group, program).await?;
            job.cache.mark_done(&key, &stored)?;
            self.ready.push(artefact(group, program, &stored));
        }
        Ok(self.ready)
    }
}

async fn c_toolchain() -> Result<()> {
    const HINT: &str = "install it with `apt-get install -y gcc pkg-config libseccomp-dev`";
    for tool in ["gcc", "pkg-config"] {
        find(tool).ok_or_else(|| BundleError::Tool { tool, hint: HINT.to_owned() })?;
    }
    let mut ask = Command::new("pkg-config");
    ask.args(["--exists", "libseccomp"]);
    output(ask, "look for libseccomp")
        .await
        .map(drop)
        .map_err(|_| BundleError::Tool { tool: "libseccomp", hint: HINT.to_owned() })
}

/// Writes the group's `go.mod`, `go.sum` and, for our own programs, `main.go`.
fn lay_out(job: &Job<'_>, group: &Group) -> Result<()> {
    let dir = job.workdir()?.dir(&group.lock)?;
    let lock = group.lock()?;
    let main = group.main().map(|text| ("main.go", text));
    for (name, text) in [("go.mod", lock.modules), ("go.sum", lock.sums)].into_iter().chain(main) {
        let path = dir.join(name);
        fs::write(&path, text).at("write", &path)?;
    }
    Ok(())
}

async fn one(job: &Job<'_>, go: &Go, group: &Group, program: &Program) -> Result<Stored> {
    let begun = Instant::now();
    (job.report)(Progress::Started { name: program.name.clone(), action: "build" });
    let workdir = job.workdir()?;
    let out = workdir.file();
    let mut command = Command::new(&go.exe);
    environment(&mut command);
    let modules = confine(&mut command, workdir)?;
    command.env("GOPROXY", go.proxies(&job.cache));
    command.current_dir(workdir.dir(&group.lock)?).env("CGO_ENABLED", if group.cgo { "1" } else { "0" });
    command.arg("build").args(flags(group)).arg("-v").arg("-o").arg(&out).arg(&program.package);
    let mut compiled = 0u32;
    let mut describe = |line: &str| describe(line, &mut compiled);
    let built = run(command, &program.name, job.report, &mut describe).await;
    // Fetched anew next time, if it was one of ours that is not what its pin says.
    if matches!(&built, Err(BundleError::Command { tail, .. }) if tail.contains("checksum mismatch")) {
        let _ = prune::remove(&job.cache.modules());
    }
    built?;
    let stored = job.copy_in(&out, PROGRAM).await?;
    fs::remove_file(&out).at("remove", &out)?;
    keep(&modules.join("cache/download"), &job.cache.modules(), &job.cache)?;
    job.done_report(&program.name, &stored, begun);
    Ok(stored)
}

/// `go build -v` names each package it compiles, alone on a line; downloads begin with `go: downloading`.
fn describe(line: &str, compiled: &mut u32) -> Option<Step> {
    if let Some(module) = line.strip_prefix("go: downloading ") {
        return Some(format!("downloading {module}").into());
    }
    if line.is_empty() || line.contains([' ', ':', '#', '\t']) {
        return None;
    }
    *compiled += 1;
    Some(Step { text: format!("{compiled} packages compiled"), count: *compiled })
}

fn flags(group: &Group) -> Vec<String> {
    let mut flags = vec!["-mod=readonly".to_owned(), "-trimpath".to_owned(), "-buildvcs=false".to_owned()];
    if !group.tags.is_empty() {
        flags.push(format!("-tags={}", group.tags.join(",")));
    }
    let mut link = vec!["-s".to_owned(), "-w".to_owned()];
    if group.cgo {
        link.push("-extldflags=-static".to_owned());
    }
    link.extend(group.stamps.iter().map(|(symbol, value)| format!("-X={symbol}={value}")));
    flags.push(format!("-ldflags={}", link.join(" ")));
    flags
}

/// Keeps what was downloaded for builds to come.
fn keep(from: &Path, to: &Path, cache: &Cache) -> Result<()> {
    trust::create(to)?;
    for path in prune::children(from)? {
        let kept = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            keep(&path, &kept, cache)?;
        } else if path.extension().is_some_and(|end| end == "zip" || end == "mod" || end == "info") && !kept.exists() {
            let scratch = cache.scratch();
            workdir::copy::<Sha256>(&path, &scratch)?;
            fs::rename(&scratch, &kept).at("rename", &scratch)?;
        }
    }
    Ok(())
}

/// Everything that Go and compilers keep or look for at home is in the build's own directory. Returns where modules are.
fn confine(command: &mut Command, workdir: &Workdir) -> Result<PathBuf> {
    if let (None, Some(home)) = (std::env::var_os("NETRC"), std::env::var_os("HOME")) {
        // Passwords of module proxies.
        command.env("NETRC", Path::new(&home).join(".netrc"));
    }
    for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "GOCACHEPROG"] {
        command.env_remove(name);
    }
    for (name, dir) in
        [("HOME", "home"), ("GOPATH", "go"), ("GOCACHE", "compiled"), ("GOTMPDIR", "tmp"), ("TMPDIR", "tmp")]
    {
        command.env(name, workdir.dir(dir)?);
    }
    command.env("CCACHE_DISABLE", "1").env("GOENV", "off");
    let modules = workdir.dir("modules")?;
    command.env("GOMODCACHE", &modules);
    Ok(modules)
}

/// What would change the result is fixed.
fn environment(command: &mut Command) {
    for name in ["GOEXPERIMENT", "GOAMD64", "GOARM64", "GODEBUG", "CGO_CFLAGS", "CGO_LDFLAGS"] {
        command.env_remove(name);
    }
    command.env("GOOS", "linux").env("GOARCH", arch()).env("GOWORK", "off").env("GO111MODULE", "on");
    // Not merely unset: Go would then take the value from its own configuration file.
    command.env("GOFLAGS", "-buildvcs=false").env("GOTOOLCHAIN", "local");
}

fn input_key(go: &Go, group: &Group, program: &Program) -> Result<String> {
    let lock = group.lock()?;
    let flags = flags(group).join("\n");
    let cgo = if group.cgo { "cgo" } else { "" };
    let main = group.main().unwrap_or_default();
    let inputs = [RECIPE, &go.version, arch(), lock.modules, lock.sums, main, &flags, cgo, &program.package];
    Ok(key(&inputs))
}

fn artefact(group: &Group, program: &Program, stored: &Stored) -> Artefact {
    let source = match group.main() {
        Some(_) => format!("go:pilothouse.local/{}", program.name),
        None => format!("go:{}@v{}", program.package, group.version),
    };
    Artefact::stored(&program.name, Kind::Binary, &group.version, source, stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;
    use crate::catalog::Catalog;

    #[test]
    fn go_versions_compare_by_number() {
        assert!(release("1.26.8") >= release("1.26.0"));
        assert!(release("1.9") < release("1.26.0"));
        assert!(release("1.27rc1") >= release("1.26.6"));
    }

    #[test]
    fn verbose_lines_count_packages_and_keep_errors() {
        let mut compiled = 0;
        assert_eq!(describe("k8s.io/api/core/v1", &mut compiled).unwrap().text, "1 packages compiled");
        assert_eq!(
            describe("go: downloading k8s.io/api v0.36.3", &mut compiled).unwrap().text,
            "downloading k8s.io/api v0.36.3"
        );
        assert!(describe("# k8s.io/api", &mut compiled).is_none());
        assert!(describe("main.go:3:1: syntax error", &mut compiled).is_none());
    }

    #[test]
    fn flags_stamp_the_version_and_keys_depend_on_them() {
        let newest = Catalog::load(Version::default()).unwrap();
        let (group, program) = newest.programs().find(|(_, program)| program.name == "kubelet").unwrap();
        let link = flags(group).pop().unwrap();
        assert!(link.starts_with("-ldflags=-s -w -X=") && link.contains("version.gitVersion=v1.36.3"), "{link}");
        let go = Go { exe: "go".into(), version: "1.26.8".into(), proxy: String::new(), modules: "/m".into() };
        let newer = Go { version: "1.26.9".into(), ..go.clone() };
        assert_ne!(input_key(&go, group, program).unwrap(), input_key(&newer, group, program).unwrap());
    }
}
