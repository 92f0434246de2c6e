"""The admission server: answers AdmissionReviews. It holds public keys only and needs nothing of the elevation server."""
