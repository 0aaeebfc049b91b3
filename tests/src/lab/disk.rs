//! Small disks of the lab's hosts and their faults: full, read-only after an error, frozen.
//!
//! A disk is an ext4 file system in a sparse file, mounted in the host's mount namespace.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::mounts::MountNamespace;
use super::{Host, run};
use crate::ctl::output_of;

/// Disk at a directory of a host.
#[derive(Debug, Clone)]
pub struct Disk {
    host: Host,
    image: PathBuf,
    at: PathBuf,
}

impl Host {
    /// Mounts a disk of `mib` MiB at a directory of this host. Processes that start later see it.
    pub fn disk(&mut self, at: &Path, mib: u64) -> Result<Disk> {
        if self.mounts.is_none() {
            self.mounts = Some(MountNamespace::of(&self.namespace)?);
        }
        Disk::create(self, at, mib)
    }
}

impl Disk {
    /// Makes a disk of `mib` MiB and mounts it at `at`, accessible to its owner only.
    fn create(host: &Host, at: &Path, mib: u64) -> Result<Self> {
        let name = at.strip_prefix(host.dir()).context("a directory of the host")?;
        let name = name.to_string_lossy().replace('/', "-");
        let image = host.dir().join(format!("{name}.ext4"));
        File::create(&image)?.set_len(mib << 20)?;
        let path = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &path])
            .context("make a file system (Debian package e2fsprogs)")?;
        std::fs::create_dir_all(at)?;
        let disk = Self { host: host.clone(), image, at: at.to_owned() };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        self.sh(
            "mount -o loop,errors=remount-ro \"$IMAGE\" \"$DISK\" && chmod 0700 \"$DISK\"",
            "mount a disk",
        )
    }

    /// Fills the disk, as another program would.
    pub fn fill(&self) -> Result<()> {
        // The last blocks go to small files only. Others become free with a sync, or when another
        // writer gives up. So the script repeats.
        self.sh(
            "cd \"$DISK\" && n=0 && for round in $(seq 20); do cat /dev/zero >>ballast 2>/dev/null; \
             while test $n -lt 2000 && dd if=/dev/zero of=ballast.$n bs=4k count=1 conv=fsync \
             2>/dev/null; do n=$((n + 1)); done; sync -f .; \
             test \"$(df --output=avail . | tail -n 1)\" -lt 16 && exit 0; done; df . >&2; exit 1",
            "fill a disk",
        )
    }

    /// Frees the space again.
    pub fn free_space(&self) -> Result<()> {
        self.sh("rm \"$DISK\"/ballast* && sync -f \"$DISK\"", "make room on a disk")
    }

    /// Makes the kernel find an error and remount read-only, as ext4 does on most machines.
    pub fn turn_read_only(&self) -> Result<()> {
        // The command itself may fail: the error that it provokes is intended.
        self.sh(
            "mount -o remount,abort \"$DISK\" 2>/dev/null; ! touch \"$DISK/probe\" 2>/dev/null",
            "turn a disk read-only",
        )
    }

    /// Freezes the disk until the returned value is dropped: no write ends and none fails, as on a
    /// lost path to the disk.
    pub fn freeze(&self) -> Result<FrozenDisk<'_>> {
        self.sh("fsfreeze --freeze \"$DISK\"", "freeze a disk")?;
        Ok(FrozenDisk(self))
    }

    /// Checks and remounts the disk, as an operator does once nothing uses it.
    pub fn check_and_mount(&self) -> Result<()> {
        self.sh("umount \"$DISK\" && { e2fsck -fy \"$IMAGE\"; test $? -lt 4; }", "check a disk")?;
        self.mount()
    }

    fn sh(&self, script: &str, what: &str) -> Result<()> {
        let mut command = self.host.command("sh");
        command.args(["-c", script]).env("IMAGE", &self.image).env("DISK", &self.at);
        output_of(&mut command)?
            .success()
            .with_context(|| format!("{what} at {} of {}", self.at.display(), self.host.name()))?;
        Ok(())
    }
}

/// Disk on which no write ends.
#[derive(Debug)]
pub struct FrozenDisk<'a>(&'a Disk);

impl Drop for FrozenDisk<'_> {
    /// A process that waits for a frozen disk cannot even be killed.
    fn drop(&mut self) {
        self.0.sh("fsfreeze --unfreeze \"$DISK\"", "unfreeze a disk").expect("it was frozen");
    }
}
