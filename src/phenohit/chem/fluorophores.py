"""Substructures that shine by themselves in a fluorescence microscope.

Each pattern is the chromophore of a family whose members are fluorescent dyes, drugs or natural
products. The families are those of textbooks (Lakowicz 2006, doi:10.1007/978-0-387-46312-4, chapters 1
and 3) and of the libraries profiled by Simeonov et al. 2008 (doi:10.1021/jm701301m), in which compounds
with long conjugated ring systems make up the bright ones. A pattern says that a compound may shine: how
brightly depends on substituents, and quenched members of a family exist.
"""

from __future__ import annotations

__all__ = ["FLUOROPHORES"]

# name -> SMARTS. The test holds a fluorescent compound for each, and drugs that none may match.
FLUOROPHORES = {
    "aminocoumarin or hydroxycoumarin": "[O,N;!$(NC=O)]c1ccc2c(c1)oc(=O)cc2",
    "aryl coumarin": "O=c1oc2ccccc2cc1-a",
    "xanthene dye": "c1ccc2c(c1)[#6](-c1ccccc1)~c1ccc(~[O,N])cc1~[#8,#6,#14]~2",
    "fluorescein": "C1(OC(=O)c2ccccc12)(c1ccc([O,N])cc1)c1ccc([O,N])cc1",
    "acridine": "c1ccc2nc3ccccc3cc2c1",
    "acridone": "O=c1c2ccccc2[n]c2ccccc12",
    "phenoxazine or phenothiazinium dye": "[#7]~[#6]1~[#6]~[#6]~c2nc3ccc(~[#7])cc3[o,s]c2~[#6]~1",
    "resorufin": "O=c1ccc2nc3ccc([O,N])cc3oc-2c1",
    "naphthalimide": "O=C1[#7]C(=O)c2cccc3cccc1c23",
    "dansyl": "[NX3;!$(N-C=O)]c1cccc2c(S(=O)=O)cccc12",
    "nitrobenzoxadiazole": "[O-][N+](=O)c1ccc([#7,#8,#16])c2nonc12",
    "BODIPY": "[#5]1(F)(F)~[#7]2~[#6]~[#6]~[#6]~[#6]~2~[#6]~[#6]2~[#6]~[#6]~[#6]~[#7]~2~1",
    "cyanine": "[NX3;R,$(N(C)C)]-,:,=[#6]-,=,:[CH]=[CH]-[CH]=[#6]-,:,=[#7+,#7]",
    "porphyrin": "[#6]1~[#6]~[#6]2~[#6]~[#6]3~[#6]~[#6]~[#6](~[#7]~3)~[#6]~[#6]3~[#6]~[#6]~[#6](~[#7]~3)~[#6]"
    "~[#6]3~[#6]~[#6]~[#6](~[#7]~3)~[#6]~[#6]~1~[#7]~2",
    "anthracene": "c1ccc2cc3ccccc3cc2c1",
    "pyrene": "c1cc2ccc3cccc4ccc(c1)c2c34",
    "perylene": "c1cc2cccc3c4cccc5cccc(c(c1)c23)c45",
    "amino- or hydroxyanthraquinone": "O=C1c2ccccc2C(=O)c2c([OH,NX3])cccc12",
    "carboline": "c1ccc2c(c1)[nH0,nH1]c1cnccc12",
    "carboline (gamma or alpha)": "c1ccc2c(c1)[nH0,nH1]c1ncccc12",
    "alkoxyquinoline with carbinol": "COc1ccc2nccc([#6;X4])c2c1",
    "camptothecin": "O=c1cccc2n1Cc1cc3ccccc3nc1-2",
    "protoberberine": "c1ccc2c[n+]3c(cc2c1)-c1ccccc1CC3",
    "isoalloxazine (flavin)": "O=c1nc2nc3ccccc3nc-2c(=O)n1",
    "aminoaryl benzazole": "[OX2,NX3;!$(N-C=O);!$(N-S(=O))]c1ccc(cc1)-c1nc2ccccc2[n,o,s]1",
    "bis(benzimidazole)": "c1ccc2[nH]c(nc2c1)-c1ccc2[nH]c(-a)nc2c1",
    "hydroxyflavone": "[OH]c1c(-c2ccccc2)oc2ccccc2c1=O",
    "aminostilbene": "[NX3,NH2]c1ccc(cc1)/C=C/c1ccccc1",
    "distyrylbenzene": "c1ccc(cc1)C=Cc1ccc(cc1)C=Cc1ccccc1",
    "oligothiophene": "c1csc(c1)-c1ccc(s1)-c1cccs1",
    "ellipticine": "c1ccc2c(c1)[nH]c1cc3cnccc3cc12",
    "phenanthridinium": "c1ccc2c(c1)c[n+]c1ccccc12",
    "curcuminoid": "a/C=C/C(=O)CC(=O)/C=C/a",
    "curcuminoid (enol)": "a/C=C/C(=O)C=C(O)/C=C/a",
}
