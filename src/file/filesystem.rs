//! What the operating system tells of a file: the file system that it lies on, and which users can get at it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use super::error::cannot_open;
use crate::error::Result;

/// File systems whose locks and shared memory do not reach every machine that sees the file, by their names in the kernel.
/// File systems served by a program (FUSE) count as well, since what they do is unknown.
const REMOTE: &str = "nfs nfs4 cifs smb2 smb3 smbfs 9p afs ncpfs coda ceph lustre gpfs beegfs orangefs pvfs2 glusterfs ocfs2 \
                      gfs2 virtiofs vboxsf vmhgfs prl_fs drvfs fuse fuseblk";

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    pub kind: String,
    pub mounted_at: PathBuf,
}

impl Filesystem {
    fn is_remote(&self) -> bool {
        self.kind.starts_with("fuse.") || REMOTE.split(' ').any(|remote| remote == self.kind)
    }
}

/// Refuses a file on a network or FUSE file system; `folder` is the real path of the folder it lies in.
pub(super) fn check(path: &Path, folder: &Path) -> Result<()> {
    let refused = |found: &str| {
        let why = format!(
            "it lies on a network or FUSE file system ({found}), where the locks and the shared memory that SQLite needs \
             cannot be relied on and the file may be damaged without a sign; put it on a local disk, or see \
             KilnBuilder::allow_network_file_system"
        );
        Err(cannot_open(path, why))
    };
    if cfg!(windows) && is_unc(&folder.to_string_lossy()) {
        return refused(&folder.display().to_string());
    }
    match filesystem_of(folder) {
        Some(found) if found.is_remote() => refused(&format!("{} at {}", found.kind, found.mounted_at.display())),
        _ => Ok(()),
    }
}

/// Whether a Windows path names a share of another machine, such as `\\server\share`. The real path of a mapped drive does.
fn is_unc(path: &str) -> bool {
    match path.strip_prefix(r"\\?\").or_else(|| path.strip_prefix(r"\\.\")) {
        Some(rest) => rest.len() >= 4 && rest[..4].eq_ignore_ascii_case(r"UNC\"),
        None => path.starts_with(r"\\"),
    }
}

/// The file system of a folder; `None` if the operating system does not tell.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn filesystem_of(_: &Path) -> Option<Filesystem> {
    None
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use mounts::filesystem_of;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod mounts {
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use std::path::{Path, PathBuf};

    use super::{Filesystem, identity};

    pub struct Mount {
        device: (u64, u64),
        filesystem: Filesystem,
    }

    /// The file system of a folder; `None` if the operating system does not tell.
    pub fn filesystem_of(folder: &Path) -> Option<Filesystem> {
        let mounts = parse(&fs::read("/proc/self/mountinfo").ok()?);
        let (device, _) = identity(folder)?;
        let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
        let minor = (device & 0xff) | (device >> 12 & 0xffff_ff00);
        find(mounts, folder, (major, minor))
    }

    /// The mount a path lies on: the innermost mount above it, and the last of several at one point. A mount with the
    /// path's device goes first, since the others may be hidden by later mounts. Not every mount has the device that the
    /// kernel reports for its files, so the device alone is not enough.
    pub fn find(mounts: Vec<Mount>, path: &Path, device: (u64, u64)) -> Option<Filesystem> {
        let above = mounts.into_iter().filter(|mount| path.starts_with(&mount.filesystem.mounted_at));
        let depth = |mount: &Mount| (mount.device == device, mount.filesystem.mounted_at.components().count());
        above.max_by_key(depth).map(|mount| mount.filesystem)
    }

    pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
        mountinfo.split(|&byte| byte == b'\n').filter_map(mount).collect()
    }

    /// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda1 rw`, with any number of fields before the dash.
    fn mount(line: &[u8]) -> Option<Mount> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
        let kind = unescaped(fields.get(dash + 1)?);
        Some(Mount {
            device: (major.parse().ok()?, minor.parse().ok()?),
            filesystem: Filesystem {
                kind: String::from_utf8_lossy(&kind).into_owned(),
                mounted_at: PathBuf::from(OsString::from_vec(unescaped(fields.get(4)?))),
            },
        })
    }

    /// The kernel writes the bytes that separate fields and lines in octal, such as `\040`.
    fn unescaped(mut field: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(field.len());
        while let [first, rest @ ..] = field {
            let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
            match (first, rest.get(..3).and_then(octal)) {
                (b'\\', Some(byte)) => {
                    bytes.push(byte);
                    field = &rest[3..];
                }
                _ => {
                    bytes.push(*first);
                    field = rest;
                }
            }
        }
        bytes
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        // Lines as kernels wrote them, and two that are broken.
        const RECORDED: &str = r"
22 27 0:21 / /proc rw,nosuid - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:41 / /mnt/nas rw,relatime shared:9 - nfs4 nas.local:/export rw,vers=4.2,rsize=1048576
41 27 0:42 / /mnt/win rw,relatime - cifs //server/share rw,vers=3.1.1
42 27 0:43 / /home/me/far rw,nosuid,nodev - fuse.sshfs me@far:/home/me rw,user_id=1000,group_id=1000
43 27 0:44 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\134
44 27 0:45 / /host rw,relatime - virtiofs share rw
45 27 0:46 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/c
46 27 0:47 /@home /data rw,relatime shared:3 master:2 propagate_from:1 - btrfs /dev/sdb1 rw,subvol=/@home
47 27 254:0 /srv/bind /bound rw,relatime - ext4 /dev/vda rw
48 27 0:48 / /media/My\040Share\011x rw - nfs server:/a\040b rw
49 27 8:17 / /media/stick rw - fuseblk /dev/sdb1 rw
50 27 0:50 / /mnt/nas/inner rw - tmpfs tmpfs rw
51 27 8:33 / /over rw - ext4 /dev/sdc1 rw
52 27 0:52 / /over rw - nfs server:/over rw
half a line
53 27 nonsense / /x rw - ext4 /dev/sdd rw
";

        fn found(path: &str, device: (u64, u64)) -> (String, bool) {
            let found = find(parse(RECORDED.as_bytes()), Path::new(path), device).unwrap();
            (found.kind.clone(), found.is_remote())
        }

        #[test]
        fn a_path_lies_on_the_innermost_mount_above_it() {
            let unknown = (0, 999);
            for (path, kind, remote) in [
                ("/", "ext4", false),
                ("/mnt/nas", "nfs4", true),
                ("/mnt/nas/a/b", "nfs4", true),
                ("/mnt/nasty", "ext4", false),
                ("/mnt/nas/inner/a", "tmpfs", false),
                ("/mnt/win/a", "cifs", true),
                ("/home/me/far/a", "fuse.sshfs", true),
                ("/home/me", "ext4", false),
                ("/mnt/c/Users", "9p", true),
                ("/host/src", "virtiofs", true),
                ("/var/lib/docker/overlay2/x/merged/app", "overlay", false),
                ("/data/me", "btrfs", false),
                ("/bound/me", "ext4", false),
                ("/media/My Share\tx/a", "nfs", true),
                ("/media/stick", "fuseblk", true),
            ] {
                assert_eq!(found(path, unknown), (kind.to_owned(), remote), "{path}");
            }
        }

        #[test]
        fn of_several_mounts_at_one_point_the_last_counts_or_the_one_with_the_path_s_device() {
            assert_eq!(found("/over/a", (0, 999)).0, "nfs");
            assert_eq!(found("/over/a", (0, 52)).0, "nfs");
            assert_eq!(found("/over/a", (8, 33)).0, "ext4", "the other was not mounted over it");
            assert_eq!(found("/mnt/nas/inner/a", (0, 41)).0, "nfs4", "hidden by what was mounted over it");
        }

        #[test]
        fn the_real_table_tells_of_the_real_folder() {
            let folder = tempfile::tempdir().unwrap();
            let found = filesystem_of(&folder.path().canonicalize().unwrap()).unwrap();
            assert!(folder.path().canonicalize().unwrap().starts_with(&found.mounted_at), "{found:?}");
            assert!(!found.is_remote() && !found.kind.is_empty(), "{found:?}");
            assert_eq!(filesystem_of(Path::new("/proc/self")).unwrap().kind, "proc");
        }

        #[test]
        fn a_backslash_that_escapes_nothing_is_one() {
            for (field, bytes) in [("a\\134b", "a\\b"), ("\\04", "\\04"), ("\\999x", "\\999x"), ("\\", "\\")] {
                assert_eq!(unescaped(field.as_bytes()), bytes.as_bytes());
            }
        }
    }
}

/// The path of a file that lies beside another, with its name and this end.
pub(crate) fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What a file is known by, whatever its names are: its device and its number. `None` if the system does not tell.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok()
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Opens new files for their owner only.
#[cfg(unix)]
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

/// On other systems a file inherits what its folder allows.
#[cfg(not(unix))]
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// What lets other users get at a file, as far as permissions tell: one sentence each, with what to do.
#[cfg(unix)]
pub(crate) fn exposures(file: &Path) -> Vec<String> {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    let mut found = Vec::new();
    let Ok(of_file) = fs::metadata(file) else { return found };
    let mode = of_file.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let what = if mode & 0o022 != 0 { "read or write" } else { "read" };
        let file = file.display();
        found.push(format!("others may {what} the file {file} (mode {mode:03o}), with everything in it; chmod 600 it"));
    }
    let Some((folder, of_folder)) = file.parent().and_then(|folder| Some((folder, fs::metadata(folder).ok()?))) else {
        return found;
    };
    let mode = of_folder.mode() & 0o7777;
    let folder = folder.display();
    if mode & 0o022 != 0 {
        found.push(format!(
            "others may create files in the folder {folder} (mode {mode:03o}), in the place of the database's side files \
             as well; keep the database in a folder of its own with mode 700"
        ));
    }
    if ![0, of_file.uid()].contains(&of_folder.uid()) {
        let (of_folder, of_file) = (of_folder.uid(), of_file.uid());
        found.push(format!(
            "the folder {folder} belongs to another user ({of_folder}) than the file ({of_file}), who may replace the file; \
             keep the database in a folder of its own"
        ));
    }
    found
}

/// On other systems the standard library does not tell permissions.
#[cfg(not(unix))]
pub(crate) fn exposures(_: &Path) -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_windows_is_told_from_a_drive() {
        for share in [r"\\server\share\a.db", r"\\?\UNC\server\share", r"\\?\unc\wsl$\a", r"\\wsl.localhost\Ubuntu"] {
            assert!(is_unc(share), "{share}");
        }
        for drive in [r"C:\a.db", r"\\?\C:\a.db", r"\\.\C:\a.db", r"a\b", r"\a", "/a", ""] {
            assert!(!is_unc(drive), "{drive}");
        }
    }
}
