"""Operations on a fleet: planned as data, journalled step by step, resumable from any machine."""
