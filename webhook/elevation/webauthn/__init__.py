"""WebAuthn (W3C Web Authentication Level 3): passkeys and security keys, verified by the ``webauthn`` package."""
