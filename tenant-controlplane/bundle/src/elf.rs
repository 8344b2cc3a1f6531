//! Is a program statically linked? Asked of anything that leaves this machine or goes into an image without libraries.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const PT_INTERP: u32 = 3;

/// Whether a program is linked statically: true for a 64-bit little-endian ELF file that asks for no dynamic loader (System V ABI, program
/// header `PT_INTERP`).
pub fn is_static(path: &Path) -> std::io::Result<bool> {
    let mut file = std::fs::File::open(path)?;
    let mut head = [0u8; 64];
    if file.read_exact(&mut head).is_err() || head[..6] != [0x7f, b'E', b'L', b'F', 2, 1] {
        return Ok(false);
    }
    let offset = u64::from_le_bytes(array(&head, 32));
    let (size, count) = (u16::from_le_bytes(array(&head, 54)), u16::from_le_bytes(array(&head, 56)));
    for index in 0..u64::from(count) {
        file.seek(SeekFrom::Start(offset.saturating_add(index * u64::from(size))))?;
        let mut kind = [0u8; 4];
        file.read_exact(&mut kind)?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

fn array<const N: usize>(bytes: &[u8; 64], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_dynamic_and_text_is_no_program() {
        assert!(!is_static(&std::env::current_exe().unwrap()).unwrap());
        assert!(!is_static(Path::new("/etc/passwd")).unwrap());
    }
}
