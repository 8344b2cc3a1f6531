//! What an isolated machine's processes may not do even in their own user namespace.
//!
//! The user namespace already takes every right over the rest of the kernel away. These two are a second wall: capabilities that mean
//! nothing to a machine in a namespace, and system calls whose faults in the past led out of one.

use libc::{c_long, sock_filter};

use crate::error::LocalError;
use crate::kernel;

/// CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_SYS_TIME, CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND, CAP_PERFMON, CAP_BPF (linux/capability.h).
/// CAP_MKNOD stays: containerd gives it to every pod, and in a user namespace no device can be made with it.
const CAPABILITIES: [libc::c_ulong; 8] = [16, 17, 22, 25, 35, 36, 38, 39];
/// Of these the kernel may know fewer: the last one it knows.
const LAST_CAPABILITY: &str = "/proc/sys/kernel/cap_last_cap";

/// Answered with EPERM. runc, kubelet and kube-proxy need none of them in a user namespace; keyctl stays, because runc gives every
/// container a keyring of its own.
const DENIED: &[c_long] = &[
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// `AUDIT_ARCH_X86_64` or `AUDIT_ARCH_AARCH64` (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(not(target_arch = "x86_64"))]
const ARCH: u32 = 0xc000_00b7;
/// System calls from here on are the x32 ones, which would pass by the list under other numbers.
const X32: u32 = 0x4000_0000;
/// `struct seccomp_data`: where the number and the architecture are.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
/// BPF (linux/bpf_common.h): load a word, jump if equal, jump if not below, return.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const NOT_BELOW: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the low half of the first argument is; both architectures are little-endian.
const FIRST_ARGUMENT_AT: u32 = 16;
/// The families of sockets that there are: local, IPv4, IPv6, netlink and packets. Others have addresses that no network namespace and no
/// packet filter knows, as AF_VSOCK has.
const FAMILIES: [u32; 5] = [1, 2, 10, 16, 17];

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

const fn step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The filter: another architecture's calls are not there, the denied ones are not permitted, all others go on.
fn program() -> Vec<sock_filter> {
    let mut program = vec![
        step(LOAD, ARCH_AT, 0, 0),
        step(EQUAL, ARCH, 1, 0),
        step(RETURN, ERRNO | ENOSYS, 0, 0),
        step(LOAD, NUMBER_AT, 0, 0),
        step(NOT_BELOW, X32, 0, 1),
        step(RETURN, ERRNO | ENOSYS, 0, 0),
    ];
    for number in DENIED {
        program.push(step(EQUAL, u32::try_from(*number).unwrap_or(u32::MAX), 0, 1));
        program.push(step(RETURN, ERRNO | EPERM, 0, 0));
    }
    program.extend(families());
    program.push(step(RETURN, ALLOW, 0, 0));
    program
}

/// The part before the last step: sockets of other families are not there. A jump counts the steps that it leaves out.
fn families() -> Vec<sock_filter> {
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let count = u8::try_from(FAMILIES.len()).unwrap_or(u8::MAX);
    let mut part = vec![
        step(EQUAL, number(libc::SYS_socket), 1, 0),
        step(EQUAL, number(libc::SYS_socketpair), 0, count + 2),
        step(LOAD, FIRST_ARGUMENT_AT, 0, 0),
    ];
    part.extend((0..count).zip(FAMILIES).map(|(at, family)| step(EQUAL, family, count - at, 0)));
    part.push(step(RETURN, ERRNO | EAFNOSUPPORT, 0, 0));
    part
}

/// Confines this process and all it starts, for good.
///
/// # Errors
/// [`LocalError::Call`].
pub fn confine() -> Result<(), LocalError> {
    let last = std::fs::read_to_string(LAST_CAPABILITY).ok().and_then(|text| text.trim().parse().ok());
    for number in CAPABILITIES.into_iter().filter(|number| *number <= last.unwrap_or(libc::c_ulong::MAX)) {
        kernel::drop_capability(number)?;
    }
    kernel::install_filter(&program())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, by running it.
    fn answer(arch: u32, number: u32) -> u32 {
        answer_to(arch, number, 0)
    }

    /// [`answer`], with a first argument.
    fn answer_to(arch: u32, number: u32, first: u32) -> u32 {
        let (program, mut at, mut loaded) = (program(), 0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD if step.k == ARCH_AT => loaded = arch,
                LOAD if step.k == NUMBER_AT => loaded = number,
                LOAD => loaded = first,
                RETURN => return step.k,
                code => {
                    let holds = if code == EQUAL { loaded == step.k } else { loaded >= step.k };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    #[test]
    fn sockets_are_of_families_that_networks_bound() {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            let family = |family| answer_to(ARCH, u32::try_from(call).unwrap(), family);
            let (vsock, alg) = (40, 38);
            assert_eq!([family(vsock), family(alg), family(0)], [ERRNO | EAFNOSUPPORT; 3]);
            assert_eq!(FAMILIES.map(family), [ALLOW; 5]);
        }
        let connect = u32::try_from(libc::SYS_connect).unwrap();
        assert_eq!(answer_to(ARCH, connect, 40), ALLOW, "a descriptor of that number");
    }

    #[test]
    fn the_filter_denies_the_list_and_nothing_else() {
        for number in DENIED {
            assert_eq!(answer(ARCH, u32::try_from(*number).unwrap()), ERRNO | EPERM, "{number}");
        }
        for number in [libc::SYS_mount, libc::SYS_clone3, libc::SYS_keyctl, libc::SYS_read, libc::SYS_mount_setattr] {
            assert_eq!(answer(ARCH, u32::try_from(number).unwrap()), ALLOW, "{number}");
        }
        let kexec = u32::try_from(libc::SYS_kexec_load).unwrap();
        assert_eq!(answer(ARCH, X32 | kexec), ERRNO | ENOSYS, "the same call by its x32 number");
        assert_eq!(answer(0x4000_0003, 283), ERRNO | ENOSYS, "i386");
    }
}
