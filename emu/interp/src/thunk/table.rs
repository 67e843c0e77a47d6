//! How a table of thunks is made: one row an instruction.
//!
//! Not responsible for: which instructions there are (`simd`, `mmx`).

/// What an instruction takes and gives: decides which handler serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// Destination and source give the destination; integers or bits.
    Integer,
    /// The same on floating point numbers: MXCSR takes part.
    Float,
    /// [`Shape::Integer`] with XMM0 as a third operand.
    Select,
    /// Source to a general register.
    ToGeneral,
    /// The same on floating point numbers.
    FloatToGeneral,
    /// A general register is the source.
    GeneralToFloat,
    /// Two floating point operands give ZF, PF, CF.
    Compare,
    /// Two operands give ZF, CF.
    Test,
    /// String comparison with explicit or implicit lengths, to ECX.
    StringIndex,
    /// The same, to XMM0.
    StringMask,
    /// A checksum of a general register or memory, in a general register.
    Checksum,
    /// Floating point in XMM or memory to integers in an MMX register.
    FloatToMmx,
    /// Integers in an MMX register or memory to floating point in XMM.
    MmxToFloat,
}

/// Makes a table of thunks: its code, its size, and `find`, which names the thunk of a [`iced_x86::Code`].
///
/// The rows of one operand list stand together. `immediate` rows get their 256 values after the operands.
macro_rules! thunk_table {
    (
        $(#[$doc:meta])*
        $name:ident at $symbol:ident;
        $(plain $shape:ident ($operands:literal) { $($code:ident = $text:literal,)* })*
        $(immediate $ishape:ident ($ioperands:literal) { $($icode:ident = $itext:literal,)* })*
    ) => {
        std::arch::global_asm!(
            concat!(".pushsection .text.", stringify!($symbol), ",\"ax\",@progbits"),
            ".balign 64",
            concat!(".globl ", stringify!($symbol)),
            concat!(".hidden ", stringify!($symbol)),
            concat!(stringify!($symbol), ":"),
            $($(concat!($text, " ", $operands, "\nret\n.balign 8"),)*)*
            $($(concat!(
                ".irp high,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n",
                ".irp low,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n",
                $itext, " ", $ioperands, ", \\high*16+\\low\nret\n.balign 8\n.endr\n.endr"
            ),)*)*
            // A thunk longer than its eight bytes would shift all that follow: the assembler cannot go back then.
            concat!(".org ", stringify!($symbol), " + {size}"),
            ".popsection",
            size = const $name::COUNT * 8,
        );

        unsafe extern "C" {
            static $symbol: u8;
        }

        #[allow(non_camel_case_types)]
        #[repr(u32)]
        enum Plain { $($($code,)*)* End }
        #[allow(non_camel_case_types)]
        #[repr(u32)]
        enum Immediate { $($($icode,)*)* End }

        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) struct $name(u32);

        impl $name {
            const COUNT: u32 = Plain::End as u32 + 256 * Immediate::End as u32;

            /// The thunk of an instruction, with what it takes and gives.
            pub(crate) fn find(code: iced_x86::Code, immediate: u8) -> Option<($crate::thunk::Shape, Self)> {
                use $crate::thunk::Shape;
                use iced_x86::Code;
                let number = |row| Self(Plain::End as u32 + row as u32 * 256 + u32::from(immediate));
                match code {
                    $($(Code::$code => Some((Shape::$shape, Self(Plain::$code as u32))),)*)*
                    $($(Code::$icode => Some((Shape::$ishape, number(Immediate::$icode))),)*)*
                    _ => None,
                }
            }

            /// The number, to be kept in [`crate::op::Op::thunk`].
            pub(crate) fn number(self) -> u32 {
                self.0
            }

            /// The thunk of a number; a number that is none gives the last.
            #[inline(always)]
            pub(crate) fn at(number: u32) -> Self {
                Self(number.min(Self::COUNT - 1))
            }

            #[inline(always)]
            fn address(self) -> usize {
                &raw const $symbol as usize + self.0 as usize * 8
            }
        }
    };
}
pub(super) use thunk_table;
