//! The processors that images can be made for, by their names in Go, in Rust, and in the head of an ELF file.

/// Linux on one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Go's name, as in an image's configuration.
    pub architecture: &'static str,
    /// Rust's target.
    pub triple: &'static str,
    /// `e_machine` of its programs.
    machine: u64,
    big_endian: bool,
}

/// All of them. What was really built is in `config/manifests/images.yaml`.
pub const PLATFORMS: [Platform; 4] = [
    Platform {
        architecture: "amd64",
        triple: "x86_64-unknown-linux-gnu",
        machine: 62,
        big_endian: false,
    },
    Platform {
        architecture: "arm64",
        triple: "aarch64-unknown-linux-gnu",
        machine: 183,
        big_endian: false,
    },
    Platform {
        architecture: "ppc64le",
        triple: "powerpc64le-unknown-linux-gnu",
        machine: 21,
        big_endian: false,
    },
    Platform {
        architecture: "s390x",
        triple: "s390x-unknown-linux-gnu",
        machine: 22,
        big_endian: true,
    },
];

/// Program header of an interpreter.
const INTERPRETER: u64 = 3;

impl Platform {
    /// The one of this name.
    #[must_use]
    pub fn of(architecture: &str) -> Option<&'static Self> {
        PLATFORMS
            .iter()
            .find(|platform| platform.architecture == architecture)
    }

    /// A 64-bit ELF file for this processor without a program interpreter: it needs no file of the image to start.
    #[must_use]
    pub fn runs(&self, program: &[u8]) -> bool {
        let order = if self.big_endian { 2 } else { 1 };
        program.starts_with(&[0x7f, b'E', b'L', b'F', 2, order])
            && self.number(program, 0x12, 2) == Some(self.machine)
            && self
                .headers(program)
                .is_some_and(|kinds| !kinds.contains(&INTERPRETER))
    }

    /// The kinds of the program headers.
    fn headers(&self, program: &[u8]) -> Option<Vec<u64>> {
        let number = |at, bytes| self.number(program, at, bytes);
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        (0..count)
            .map(|index| number(usize::try_from(start.checked_add(index * size)?).ok()?, 4))
            .collect()
    }

    /// The number in `bytes` bytes from `at` on.
    fn number(&self, program: &[u8], at: usize, bytes: usize) -> Option<u64> {
        let field = program.get(at..at.checked_add(bytes)?)?;
        let digit = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.big_endian {
            field.iter().fold(0, digit)
        } else {
            field.iter().rev().fold(0, digit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one program header of `kind`.
    fn program(platform: &Platform, kind: u8) -> Vec<u8> {
        let mut file = vec![0_u8; 0x40 + 0x38];
        let order = if platform.big_endian { 2 } else { 1 };
        file.splice(..6, [0x7f, b'E', b'L', b'F', 2, order]);
        let machine = u8::try_from(platform.machine).expect("one byte");
        for (at, bytes, value) in [
            (0x12, 2, machine),
            (0x20, 8, 0x40),
            (0x36, 2, 0x38),
            (0x38, 2, 1),
            (0x40, 4, kind),
        ] {
            let last = if platform.big_endian { at + bytes - 1 } else { at };
            *file.get_mut(last).expect("long enough") = value;
        }
        file
    }

    #[test]
    fn a_static_program_is_told_from_a_dynamic_one_and_one_for_another_processor() {
        for platform in PLATFORMS {
            assert!(platform.runs(&program(&platform, 1)), "{platform:?}");
            assert!(!platform.runs(&program(&platform, 3)), "{platform:?}");
            assert!(!platform.runs(b"#!/bin/sh"));
            let others = PLATFORMS.iter().filter(|other| **other != platform);
            for other in others {
                assert!(!platform.runs(&program(other, 1)), "{platform:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_file_that_breaks_off_is_no_program() {
        let [platform, ..] = &PLATFORMS;
        let whole = program(platform, 1);
        for length in 0..0x44 {
            assert!(!platform.runs(whole.get(..length).expect("shorter")), "{length}");
        }
    }

    #[test]
    fn tests_are_linked_dynamically() {
        let program = std::fs::read("/proc/self/exe").expect("this test is a program");
        assert!(PLATFORMS.iter().all(|platform| !platform.runs(&program)));
    }
}
