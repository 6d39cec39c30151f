from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from phenohit.chem.fingerprints import ecfp, ecfp_features, unpack
from phenohit.errors import ConfigError, StructureError

SMILES = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]


def test_bits_are_those_of_rdkit_bit_by_bit():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    packed = ecfp(SMILES)
    assert packed.shape == (4, 256)
    assert packed.dtype == np.uint8
    for row, smiles in enumerate(SMILES):
        on = list(generator.GetFingerprint(Chem.MolFromSmiles(smiles)).GetOnBits())
        assert np.flatnonzero(unpack(packed)[row]).tolist() == on


def test_radius_and_length_matter():
    assert ecfp(SMILES, n_bits=512).shape == (4, 64)
    small, large = (unpack(ecfp(SMILES, radius=r)).sum() for r in (1, 3))
    assert small < large


def test_no_structure_has_no_bits_and_stereo_is_not_seen():
    packed = ecfp(["", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", ""])
    assert not packed[0].any()
    assert not packed[3].any()
    assert (packed[1] == packed[2]).all()
    assert packed[1].any()


def test_unpack_gives_zeros_and_ones_of_the_type_asked_for():
    packed = ecfp(SMILES)
    assert unpack(packed).dtype == np.float32
    assert unpack(packed, dtype=np.int8).dtype == np.int8
    assert set(np.unique(unpack(packed))) == {0.0, 1.0}
    assert (np.packbits(unpack(packed).astype(bool), axis=1) == packed).all()


def test_unreadable_smiles_are_named(capfd):
    with pytest.raises(StructureError, match=r"2 of 4 SMILES cannot be read: 'row 1: C1CC', 'row 3: xx'"):
        ecfp(["CCO", "C1CC", "", "xx"])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("settings", [{"n_bits": 100}, {"n_bits": 0}, {"radius": -1}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=str(next(iter(settings.values())))):
        ecfp(SMILES, **settings)


def test_nothing_in_nothing_out():
    assert ecfp([]).shape == (0, 256)


def test_features_are_rdkits_and_fold_to_the_bits():
    smiles = [*SMILES, "", "C[C@H](N)C(=O)O", SMILES[0]]
    sets = ecfp_features(smiles)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3)
    for row, text in enumerate(smiles):
        found = sets.features[sets.start[row] : sets.start[row + 1]].tolist()
        counts = generator.GetSparseCountFingerprint(Chem.MolFromSmiles(text)).GetNonzeroElements()
        assert found == sorted(counts)
        assert found or not text
    for n_bits in (64, 2048):
        assert (sets.packed(n_bits) == ecfp(smiles, n_bits=n_bits)).all()
    assert len(ecfp_features([])) == 0


def test_features_of_unreadable_smiles_and_impossible_radii_are_refused():
    with pytest.raises(StructureError, match=r"1 of 3 SMILES cannot be read: 'row 1: C1CC'"):
        ecfp_features(["CCO", "C1CC", ""])
    with pytest.raises(ConfigError, match="radius is -1"):
        ecfp_features(["CCO"], radius=-1)
